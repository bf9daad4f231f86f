import Control
import Testing

@Suite("Frames and calls")
struct FrameTests {
    @Test("finds the same messages however the bytes are cut", arguments: [1, 2, 3, 7, 64])
    func cuts(size: Int) throws {
        let stream = Array("{}\0{\"a\":1}\0\0rest".utf8)
        var decoder = FrameDecoder()
        var frames: [[UInt8]] = []
        for start in stride(from: 0, to: stream.count, by: size) {
            decoder.append(Array(stream[start..<min(start + size, stream.count)]))
            while let frame = try decoder.next() { frames.append(frame) }
        }
        #expect(frames.map { String(decoding: $0, as: UTF8.self) } == ["{}", "{\"a\":1}", ""])
        #expect(decoder.isPartial)
        #expect(decoder.takeRest() == Array("rest".utf8))
        #expect(!decoder.isPartial)
    }

    @Test("many small messages cost no more than their length")
    func manySmall() throws {
        var decoder = FrameDecoder()
        decoder.append([UInt8](repeating: 0, count: 1 << 20))
        var count = 0
        while try decoder.next() != nil { count += 1 }
        #expect(count == 1 << 20 && !decoder.isPartial)
    }

    @Test("takes a message of exactly the limit and refuses one byte more")
    func limit() throws {
        var decoder = FrameDecoder()
        decoder.append([UInt8](repeating: 0x20, count: FrameDecoder.maximumLength) + [0])
        #expect(try decoder.next()?.count == 1 << 20)
        decoder.append([UInt8](repeating: 0x20, count: FrameDecoder.maximumLength))
        #expect(try decoder.next() == nil)
        decoder.append([0x20])
        #expect(throws: ControlError.malformed(reason: "the message is longer than 1048576 bytes")) { try decoder.next() }
    }

    @Test(
        "refuses a message that is not a call and says why",
        arguments: [
            ("x", "the message is not JSON: not a JSON value at byte 0"),
            ("[]", "the message is a list, not an object"),
            ("{}", "the call names no method of an interface"),
            (#"{"method":7}"#, "the call names no method of an interface"),
            (#"{"method":"List"}"#, "the call names no method of an interface"),
            (#"{"method":"a.B","mor":true}"#, "a call has no member \"mor\""),
            (#"{"method":"a.B","more":"yes"}"#, "more is a string, not a boolean"),
            (#"{"method":"a.B","parameters":[]}"#, "parameters is a list, not an object"),
            (#"{"method":"a.B","parameters":{"n":9223372036854775808}}"#, "the message is not JSON: an integer beyond 64 bits at byte 34"),
        ])
    func malformedCall(text: String, reason: String) {
        #expect(throws: ControlError.malformed(reason: reason)) { try Call(frame: Array(text.utf8)) }
    }

    @Test("reads back the call it writes")
    func roundTrip() throws {
        let frame = Call.frame("io.baton.Supervisor.Upgrade", Parameters.Upgrade(machine: "web1", image: "/i"), more: true)
        let call = try Call(frame: Array(frame.dropLast()))
        #expect(call.interface == "io.baton.Supervisor" && call.method == "Upgrade")
        #expect(call.more && !call.oneway && !call.upgrade)
        #expect(try call.decode(Parameters.Upgrade.self).image == "/i")
    }

    @Test("reads back every error it writes", arguments: ErrorSamples.control)
    func errors(error: ControlError) throws {
        let reply = try Reply(frame: Array(Reply.frame(error: error).dropLast()))
        let name = try #require(reply.error)
        #expect(ControlError(name: name, parameters: reply.parameters) == error)
    }

    @Test("says by its path which value a type does not take")
    func decodingPath() throws {
        let call = try Call(frame: Array(#"{"method":"a.B","parameters":{"spec":{"name":"x","vcpus":"four"}}}"#.utf8))
        #expect(throws: ServiceError.invalidParameter(parameter: "spec.vcpus")) { try call.decode(Parameters.Run.self) }
    }
}

enum ErrorSamples {
    static let control: [ControlError] = [
        .machineNotFound(machine: "a"), .machineExists(machine: "a"), .refused(machine: "a", reasons: ["x", "→ y"]),
        .aborted(machine: "a", step: "load", reason: "r"), .reverted(machine: "a", reason: "r"), .busy(machine: "a", operation: "stop"),
        .invalidSpec(key: "k", reason: "r"), .imageNotAllowed(path: "/p", reason: "r"), .unavailable(feature: "f", reason: "r"),
        .notPermitted, .malformed(reason: "r"), .failed(reason: "r"),
    ]
}
