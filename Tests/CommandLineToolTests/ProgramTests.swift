import ControlTestSupport
import Foundation
import LinuxSystem
import Supervisor
import Synchronization
import Testing

/// The program as a process of its own: what only a process has, exit status, streams, signals and a terminal.
@Suite("The baton program")
struct ProgramTests {
    private struct Outcome {
        let status: Int32
        let output: String
        let errors: String
    }

    /// The executable built beside these tests.
    private static var program: URL {
        get throws {
            let bundle = try #require(CommandLine.arguments.first { $0.contains(".xctest") }, "the tests are run from their bundle")
            let directory = URL(fileURLWithPath: String(bundle.prefix(upTo: bundle.firstRange(of: ".xctest")?.lowerBound ?? bundle.endIndex)))
            return directory.deletingLastPathComponent().appending(path: "baton")
        }
    }

    private func start(_ program: URL, _ arguments: [String], socket: String, input: String? = nil) throws -> (Process, Pipe, Pipe) {
        let process = Process()
        let (output, errors) = (Pipe(), Pipe())
        process.executableURL = program
        process.arguments = arguments
        process.environment = ["BATON_SOCKET": socket, "PATH": "/usr/bin:/bin", "TERM": "xterm"]
        process.standardOutput = output
        process.standardError = errors
        let pipe = Pipe()
        process.standardInput = pipe
        try process.run()
        if let input { try pipe.fileHandleForWriting.write(contentsOf: Data(input.utf8)) }
        try pipe.fileHandleForWriting.close()
        return (process, output, errors)
    }

    private func finish(_ started: (process: Process, output: Pipe, errors: Pipe)) throws -> Outcome {
        let output = try started.output.fileHandleForReading.readToEnd() ?? Data()
        let errors = try started.errors.fileHandleForReading.readToEnd() ?? Data()
        started.process.waitUntilExit()
        return Outcome(
            status: started.process.terminationStatus, output: String(decoding: output, as: UTF8.self),
            errors: String(decoding: errors, as: UTF8.self))
    }

    private func run(_ arguments: [String], socket: String, input: String? = nil) throws -> Outcome {
        try finish(try start(try Self.program, arguments, socket: socket, input: input))
    }

    @Test("results go to standard output, errors to standard error, and the exit status tells them apart")
    func streams() throws {
        let served = try ServedSocket()
        let list = try run(["list", "--names"], socket: served.path)
        #expect(list.status == 0 && list.output == "db2\nold1\nweb1\n" && list.errors.isEmpty)
        let missing = try run(["show", "web9"], socket: served.path)
        #expect(missing.status == 6 && missing.output.isEmpty && missing.errors.hasPrefix("baton: web9: "))
        #expect(try run(["list"], socket: "/nonexistent").status == 7)
        #expect(try run(["lists"], socket: served.path).status == 2)
    }

    @Test("a machine file is taken from standard input too")
    func standardInput() throws {
        let served = try ServedSocket()
        let text = try Fixtures.read(Fixtures.directory + "/small.yaml")
        let outcome = try run(["run", "-"], socket: served.path, input: text)
        #expect(outcome.status == 0 && outcome.output.hasPrefix("small running: 1 vCPU"))
    }

    @Test("Ctrl-C leaves an upgrade going on, and says so")
    func interrupted() throws {
        let served = try ServedSocket()
        served.service.gate.set(1)
        let started = try start(
            try Self.program, ["upgrade", "web1", "--image", "/usr/lib/baton/images/baton-vmm-0.2.0"], socket: served.path)
        // Its first line is written before the call is sent, and the signal is its own to explain from before that.
        _ = try started.1.fileHandleForReading.read(upToCount: 1)
        while served.service.startedHandovers.withLock({ $0 }) == 0 { SystemClock.sleep(.milliseconds(5)) }
        started.0.interrupt()
        let outcome = try finish(started)
        #expect(outcome.status == 130)
        #expect(outcome.errors.contains("the upgrade goes on without this command"))
        #expect(served.service.finishedHandovers.withLock { $0 } == 0)
        served.service.gate.set(0)
        for _ in 0..<500 where served.service.finishedHandovers.withLock({ $0 }) == 0 { SystemClock.sleep(.milliseconds(10)) }
        #expect(served.service.finishedHandovers.withLock { $0 } == 1)
    }

    @Test("Ctrl-C among many upgrades begins no further one and waits; a second one leaves", arguments: [false, true])
    func fleetInterrupted(twice: Bool) throws {
        let served = try ServedSocket()
        served.service.gate.set(1)
        let started = try start(
            try Self.program, ["upgrade", "web1", "old1", "--parallel", "1", "--image", "/usr/lib/baton/images/baton-vmm-0.2.0"],
            socket: served.path)
        while served.service.startedHandovers.withLock({ $0 }) == 0 { SystemClock.sleep(.milliseconds(5)) }
        started.0.interrupt()
        var said = ""
        while !said.contains("Ctrl-C again"), let byte = try started.2.fileHandleForReading.read(upToCount: 1), !byte.isEmpty {
            said += String(decoding: byte, as: UTF8.self)
        }
        #expect(said.hasPrefix("baton: no further upgrade is begun; waiting for web1."))
        if twice { started.0.interrupt() } else { served.service.gate.set(0) }
        let outcome = try finish(started)
        #expect(outcome.status == 130)
        #expect(outcome.errors.contains("not begun: old1"))
        #expect(outcome.errors.contains("going on without this command: web1") == twice)
        #expect(outcome.output.contains(twice ? "0 of 2 upgraded" : "1 of 2 upgraded to 0.2.0"))
        served.service.gate.set(0)
        for _ in 0..<500 where served.service.finishedHandovers.withLock({ $0 }) == 0 { SystemClock.sleep(.milliseconds(10)) }
    }

    @Test("a console without a terminal passes bytes both ways until the machine's side ends")
    func console() throws {
        let served = try ServedSocket()
        let outcome = try run(["console", "web1"], socket: served.path, input: "one\ntwo\nbye\n")
        #expect(outcome.status == 0 && outcome.output == "hello\none\ntwo\nbye\n" && outcome.errors.isEmpty)
    }

    @Test("a console on a terminal sends what is typed as typed, and ^] leaves it")
    func terminal() throws {
        let served = try ServedSocket()
        let script = URL(fileURLWithPath: "/usr/bin/script")
        guard FileManager.default.isExecutableFile(atPath: script.path) else { try Test.cancel("no script(1) here") }
        let command = "\(try Self.program.path) console web1"
        let process = Process()
        let (input, output) = (Pipe(), Pipe())
        process.executableURL = script
        process.arguments = ["-qec", command, "/dev/null"]
        process.environment = ["BATON_SOCKET": served.path, "PATH": "/usr/bin:/bin", "TERM": "xterm", "SHELL": "/bin/sh"]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        var seen = ""
        func read(until text: String) throws {
            while !seen.contains(text), let byte = try output.fileHandleForReading.read(upToCount: 1), !byte.isEmpty {
                seen += String(decoding: byte, as: UTF8.self)
            }
        }
        // The terminal is raw before the console says anything.
        try read(until: "hello")
        try input.fileHandleForWriting.write(contentsOf: Data("q\u{3}r".utf8))
        try read(until: "q\u{3}r")
        try input.fileHandleForWriting.write(contentsOf: Data("\u{1D}".utf8))
        seen += String(decoding: try output.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        #expect(seen.hasPrefix("web1: attached; leave with ^]") && seen.contains("q\u{3}r") && seen.contains("web1: detached"))
    }
}
