import Control
import ControlTestSupport
import LinuxSystem
import Supervisor
import Synchronization
import SystemPackage
import Testing

@Suite("Control socket")
struct VarlinkServerTests {
    private func ask(_ message: String, configure: (inout VarlinkServer.Configuration) -> Void = { _ in }) throws -> String? {
        let served = try ServedSocket(configure: configure)
        let client = try served.connect()
        client.send(message)
        return client.receive()
    }

    @Test("says who it is and what it offers")
    func introspection() throws {
        let info = try #require(try ask(#"{"method":"org.varlink.service.GetInfo"}"#))
        #expect(info.contains(#""interfaces":["org.varlink.service","io.baton.Supervisor"]"#))
        let description = try ask(
            #"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.baton.Supervisor"}}"#)
        #expect(description?.contains(#"method List() -> (machines: []Machine)"#) == true)
    }

    @Test("answers calls of one connection in their order")
    func pipelining() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(
            Array(#"{"method":"io.baton.Supervisor.Show","parameters":{"machine":"web9"}}"#.utf8) + [0]
                + Array(#"{"method":"io.baton.Supervisor.Doctor"}"#.utf8) + [0])
        #expect(client.receive() == #"{"error":"io.baton.Supervisor.MachineNotFound","parameters":{"machine":"web9"}}"#)
        #expect(client.receive()?.contains("checks") == true)
    }

    @Test(
        "refuses what the interface does not declare, and goes on",
        arguments: [
            (#"{"method":"io.baton.Other.List"}"#, #"{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"io.baton.Other"}}"#),
            (#"{"method":"io.baton.Supervisor.Explode"}"#, #"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"Explode"}}"#),
            (#"{"method":"org.varlink.service.Explode"}"#, #"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"Explode"}}"#),
            (
                #"{"method":"io.baton.Supervisor.List","parameters":{"all":true}}"#,
                #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"all"}}"#
            ),
            (
                #"{"method":"io.baton.Supervisor.Show","parameters":{"machine":[]}}"#,
                #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"machine"}}"#
            ),
            (#"{"method":"io.baton.Supervisor.Events"}"#, #"{"error":"org.varlink.service.ExpectedMore","parameters":{}}"#),
        ])
    func undeclared(call: String, reply: String) throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(call)
        #expect(client.receive() == reply)
        client.send(#"{"method":"io.baton.Supervisor.Doctor"}"#)
        #expect(client.receive()?.contains("checks") == true)
    }

    @Test(
        "answers what is not varlink with one error and closes",
        arguments: [
            "x", "[]", "{}", #"{"method":"io.baton.Supervisor.List","parameters":{"n":9223372036854775808}}"#,
            String(repeating: "[", count: 100_000), String(repeating: " ", count: (1 << 20) + 1),
        ])
    func malformed(message: String) throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(message)
        #expect(client.receive()?.hasPrefix(#"{"error":"io.baton.Supervisor.Malformed","parameters":{"reason":""#) == true)
        #expect(client.receive() == nil)
        #expect(served.becomesIdle())
    }

    @Test("refuses a specification no host could run")
    func specification() throws {
        var spec = Samples.spec
        spec.vcpus = 0
        let call = Call.frame("io.baton.Supervisor.Run", Parameters.Run(spec: spec))
        let reply = try ask(String(decoding: call.dropLast(), as: UTF8.self))
        #expect(reply?.contains(#""error":"io.baton.Supervisor.InvalidSpec""#) == true)
    }

    @Test("sends every step of an upgrade to a client that asks for more, and the record last")
    func streaming() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(Call.upgradeOfWeb1(more: true))
        var replies: [String] = []
        while let reply = client.receive() {
            replies.append(reply)
            if !reply.contains(#""continues":true"#) { break }
        }
        #expect(replies.count == StubData.steps("web1").count + 1)
        #expect(replies.dropLast().allSatisfy { $0.contains(#""step":"#) })
        #expect(replies.last?.contains(#""handover":"#) == true)
    }

    @Test("sends only the record to a client that does not")
    func singleReply() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(Call.upgradeOfWeb1(more: false))
        #expect(client.receive()?.contains(#""handover":"#) == true)
    }

    @Test("an upgrade goes on when its client leaves")
    func leaving() throws {
        let served = try ServedSocket()
        served.service.gate.set(1)
        do {
            let client = try served.connect()
            client.send(Call.upgradeOfWeb1(more: true))
            #expect(client.receive() != nil)
        }
        #expect(served.becomesIdle())
        #expect(served.service.finishedHandovers.withLock { $0 } == 0)
        served.service.gate.set(0)
        for _ in 0..<500 where served.service.finishedHandovers.withLock({ $0 }) == 0 { SystemClock.sleep(.milliseconds(10)) }
        #expect(served.service.finishedHandovers.withLock { $0 } == 1)
    }

    @Test("a client that never reads is given up, and its upgrade goes on")
    func neverReads() throws {
        let served = try ServedSocket { $0.limits.write = .milliseconds(100) }
        for _ in 0..<200 { served.service.log.append(.warning, detail: String(repeating: "x", count: 100_000)) }
        let watching = try served.connect()
        watching.send(#"{"method":"io.baton.Supervisor.Events","more":true,"parameters":{"follow":true}}"#)
        #expect(watching.receive() != nil)
        #expect(served.becomesIdle())
        let upgrading = try served.connect()
        for _ in 0..<200 { upgrading.send(Call.upgradeOfWeb1(more: true)) }
        #expect(upgrading.receive() != nil)
        #expect(served.becomesIdle())
        // The last one lost its client in the middle.
        let started = served.service.startedHandovers.withLock { $0 }
        for _ in 0..<500 where served.service.finishedHandovers.withLock({ $0 }) < started { SystemClock.sleep(.milliseconds(10)) }
        #expect(1...199 ~= started && served.service.finishedHandovers.withLock { $0 } == started)
    }

    @Test("a client that never finishes its message is given up")
    func slow() throws {
        let served = try ServedSocket { $0.limits.partialMessage = .milliseconds(50) }
        let client = try served.connect()
        client.send(Array("{\"method\":".utf8))
        #expect(client.isClosed())
    }

    @Test("a client that was idle for long has its full time for the next message")
    func lateMessage() throws {
        let served = try ServedSocket { $0.limits.partialMessage = .milliseconds(300) }
        let client = try served.connect()
        SystemClock.sleep(.milliseconds(400))
        client.send(Array(#"{"method":"org.varlink."#.utf8))
        SystemClock.sleep(.milliseconds(50))
        client.send(#"service.GetInfo"}"#)
        #expect(client.receive()?.contains("batond") == true)
    }

    @Test("an idle client is given up in the end")
    func idle() throws {
        let served = try ServedSocket { $0.limits.idle = .milliseconds(50) }
        #expect(try served.connect().isClosed())
    }

    @Test("one client too many is told so, and there is room again when another leaves")
    func bounded() throws {
        let served = try ServedSocket { $0.maximumConnections = 2 }
        var clients = [try served.connect(), try served.connect()]
        for client in clients {
            client.send(#"{"method":"org.varlink.service.GetInfo"}"#)
            #expect(client.receive() != nil)
        }
        let refused = try served.connect()
        #expect(refused.receive()?.contains("io.baton.Supervisor.Unavailable") == true)
        #expect(refused.isClosed())
        clients = []
        #expect(served.becomesIdle())
        let admitted = try served.connect()
        admitted.send(#"{"method":"org.varlink.service.GetInfo"}"#)
        #expect(admitted.receive()?.contains("batond") == true)
    }

    @Test("a console becomes a raw stream, with nothing lost that was sent early")
    func console() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        let call = Call.frame("io.baton.Supervisor.Console", Parameters.OneMachine(machine: "web1"), upgrade: true)
        client.send(call + Array("early".utf8))
        #expect(client.receive() == #"{"parameters":{}}"#)
        client.socket.shutdown(bothWays: false)
        var bytes = client.takeRest()
        while let chunk = try? client.socket.descriptor.read(upTo: 4096), !chunk.isEmpty { bytes += chunk }
        #expect(String(decoding: bytes, as: UTF8.self).contains("early"))
    }

    @Test("a console is not given without the flag, nor for a machine that is not there")
    func consoleRefused() throws {
        #expect(
            try ask(#"{"method":"io.baton.Supervisor.Console","parameters":{"machine":"web1"}}"#)?
                .contains("io.baton.Supervisor.Unavailable") == true)
        #expect(
            try ask(#"{"method":"io.baton.Supervisor.Console","upgrade":true,"parameters":{"machine":"web9"}}"#)?
                .contains("io.baton.Supervisor.MachineNotFound") == true)
    }

    @Test("a call that wants no reply gets none")
    func oneway() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(#"{"method":"io.baton.Supervisor.List","oneway":true}"#)
        client.send(#"{"method":"io.baton.Supervisor.Pause","parameters":{"machine":"web9"},"oneway":true}"#)
        client.send(#"{"method":"io.baton.Supervisor.Doctor"}"#)
        #expect(client.receive()?.contains("checks") == true)
    }

    @Test("events already kept come at once, those to come when they come")
    func events() throws {
        let served = try ServedSocket()
        served.service.log.append(.started, machine: "web1")
        let client = try served.connect()
        client.send(#"{"method":"io.baton.Supervisor.Events","more":true}"#)
        #expect(client.receive()?.contains(#""kind":"started""#) == true)
        #expect(client.receive() == #"{"parameters":{}}"#)
        client.send(#"{"method":"io.baton.Supervisor.Events","more":true,"parameters":{"after":1,"follow":true}}"#)
        served.service.log.append(.stopped, machine: "web1")
        #expect(client.receive()?.contains(#""kind":"stopped""#) == true)
    }

    @Test("stopping ends every connection and leaves no thread of its own")
    func stopping() throws {
        let served = try ServedSocket()
        let client = try served.connect()
        client.send(#"{"method":"org.varlink.service.GetInfo"}"#)
        #expect(client.receive() != nil)
        served.server.stop()
        #expect(client.isClosed())
        #expect(served.becomesIdle())
    }
}

extension Call {
    /// An upgrade of the stub's `web1` that goes through.
    static func upgradeOfWeb1(more: Bool) -> [UInt8] {
        frame(
            "io.baton.Supervisor.Upgrade", Parameters.Upgrade(machine: "web1", image: "/usr/lib/baton/images/baton-vmm-0.2.0"), more: more)
    }
}
