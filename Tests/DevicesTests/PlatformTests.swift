import Checkpoint
import Devices
import LinuxSystem
import SystemPackage
import Testing
import Wire

/// The devices with their real thread, a socket for a console and the host's clock.
@Suite(.serialized) final class `The platform's devices` {
    private let interrupts = RecordedInterrupts()
    private let requests = RecordedRequests()
    private let near: SharedDescriptor
    private let far: SharedDescriptor

    init() throws {
        let pair = try UnixSocket.streamPair()
        far = pair.far
        near = SharedDescriptor(pair.takeNear().takeDescriptor())
    }

    private func platform() throws -> PlatformDevices {
        let platform = try PlatformDevices(name: "devices", interrupts: interrupts, power: requests, console: Console(near))
        try platform.start()
        return platform
    }

    private func eventually(_ condition: () -> Bool) -> Bool {
        for _ in 0..<2000 {
            if condition() { return true }
            SystemClock.sleep(.milliseconds(1))
        }
        return condition()
    }

    private func send(_ text: String, to platform: PlatformDevices) {
        for byte in text.utf8 { platform.bus.write(UInt32(byte), port: 0x3F8, size: 1) }
    }

    private func receive(_ count: Int, from platform: PlatformDevices) -> String {
        var bytes: [UInt8] = []
        _ = eventually {
            while platform.bus.read(port: 0x3FD, size: 1) & 1 == 1 {
                bytes.append(UInt8(truncatingIfNeeded: platform.bus.read(port: 0x3F8, size: 1)))
            }
            return bytes.count >= count
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func `console bytes go both ways`() throws {
        let platform = try platform()
        defer { platform.finish() }
        platform.resume()
        platform.bus.write(1, port: 0x3FA, size: 1)
        send("login: ", to: platform)  // no line end: the thread sends it
        #expect(try Poll.one(far.number, timeout: .seconds(5)))
        #expect(try far.descriptor.read(upTo: 100) == Array("login: ".utf8))
        let long = String(repeating: "0123456789", count: 20)
        try far.descriptor.writeAll(Array(long.utf8))
        #expect(receive(long.count, from: platform) == long)
    }

    @Test func `parked and resumed, and taken over by another, no input is lost`() throws {
        var platform = try platform()
        platform.bus.write(1, port: 0x3FA, size: 1)
        platform.resume()
        var sent = ""
        var received = ""
        for round in 0..<50 {
            let text = "round \(round);"
            sent += text
            try far.descriptor.writeAll(Array(text.utf8))
            if round % 3 != 0 { SystemClock.sleep(.microseconds(200)) }
            try #require(platform.quiesce(timeout: .seconds(1)))
            try #require(platform.quiesce(timeout: .seconds(1)))
            if round % 2 == 0 {
                platform.resume()
            } else {
                let state = platform.state()
                platform.finish()
                platform = try self.platform()
                platform.restore(state)
                platform.resume()
            }
            if round % 5 == 4 { received += receive(sent.count - received.count, from: platform) }
        }
        #expect(received == sent)
        platform.finish()
    }

    @Test func `the interval timer ticks on the thread, and not while it is parked`() throws {
        let platform = try platform()
        defer { platform.finish() }
        platform.resume()
        for (port, value) in [(0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)] as [(UInt16, UInt32)] { platform.bus.write(value, port: port, size: 1) }
        #expect(eventually { interrupts.edges(0) >= 20 })
        #expect(platform.quiesce(timeout: .seconds(1)))
        let before = interrupts.edges(0)
        SystemClock.sleep(.milliseconds(20))
        #expect(interrupts.edges(0) == before)
        platform.resume()
        #expect(eventually { interrupts.edges(0) >= before + 20 })
    }

    @Test func `a console that takes nothing holds up nobody, and gets it later`() throws {
        let platform = try platform()
        defer { platform.finish() }
        platform.resume()
        let line = String(repeating: "z", count: 99) + "\n"
        for _ in 0..<4000 where platform.serial.output.isBlocked == false { send(line, to: platform) }
        #expect(platform.serial.output.isBlocked && platform.serial.dropped == 0)
        #expect(eventually { (try? far.descriptor.read(upTo: 1 << 20)) != nil && !platform.serial.output.isBlocked })
    }

    @Test func `parking a thread that was never started is done at once`() throws {
        let platform = try PlatformDevices(name: "devices", interrupts: interrupts, power: requests, console: Console(near))
        #expect(platform.quiesce(timeout: .zero))
    }

    @Test func `all devices go through one checkpoint at the versions agreed`() throws {
        let platform = try platform()
        defer { platform.finish() }
        platform.power.askForPowerOff()
        var writer = CheckpointWriter()
        writer.begin(writer: "test", machine: MachineID(low: 1, high: 2), generation: 1)
        platform.state().save(to: &writer, versions: SectionVersions(["serial": 1]))
        let reader = try CheckpointReader(writer.finish(), expecting: nil, understanding: PlatformState.sections)
        #expect(reader.sections.first { $0.key.name == "serial" }?.version == 1)
        #expect(try PlatformState(from: reader) == platform.state())
    }
}
