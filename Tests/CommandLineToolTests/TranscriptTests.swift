import Checkpoint
import Control
import ControlTestSupport
import LinuxSystem
import Supervisor
import Synchronization
import Testing
import Wire

@Suite("Command line transcripts")
struct TranscriptTests {
    private static let names = [
        "list", "show", "run", "handovers", "handovers-terminal", "history", "stats", "fleet", "events", "control", "inspection", "json", "usage",
        "help",
    ]

    @Test("what commands print is what is written down", arguments: names)
    func golden(name: String) throws {
        let served = try ServedSocket()
        for step in StubData.steps("web1").prefix(4) { served.service.log.append(.step, machine: "web1", generation: 8, step: step) }
        served.service.log.append(.handover, machine: "web1", generation: 8, handover: StubData.record("web1", kind: .upgrade))
        served.service.log.append(.crashed, machine: "db2", generation: 5, detail: "worker was killed by SIGSEGV")
        let path = "\(Fixtures.golden)/\(name).txt"
        let written = try Fixtures.read(path)
        let found = Transcript.replay(written, socket: served.path)
        if Transcript.regenerates { try Fixtures.write(found, to: path) }
        #expect(found == written, "run the tests with BATON_REGENERATE=1 if this is how it should be, and look at the difference")
    }

    @Test("the checkpoints in the transcripts can be written by this version, byte by byte")
    func checkpoints() throws {
        var writer = CheckpointWriter()
        writer.begin(writer: "0.1.0", machine: MachineID(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908), generation: 7)
        writer.section("clock", version: 1) { $0.u64(1) }
        writer.section("vcpu", instance: 0, version: 3, minimumReader: 2) { $0.zeros(4000) }
        writer.section("vcpu", instance: 1, version: 3, minimumReader: 2) { $0.zeros(4000) }
        writer.section("serial", version: 1, mustUnderstand: false) { $0.zeros(12) }
        let intact = writer.finish()
        var damaged = intact
        damaged[5000] ^= 1
        for (name, bytes) in [("sample", intact), ("damaged", damaged)] {
            let path = "\(Fixtures.directory)/\(name).checkpoint"
            if Transcript.regenerates { try OwnedDescriptor.open(path, .replace, permissions: 0o644).writeAll(bytes) }
            #expect(try OwnedDescriptor.open(path, followingLinks: true).readAll(limit: 1 << 20) == bytes)
        }
    }

    @Test("the error handbook shows every error as it is printed")
    func errors() throws {
        let path = Fixtures.repository + "/docs/errors.md"
        let written = try Fixtures.read(path)
        let served = try ServedSocket()
        let closing = try CannedServer(answer: nil)
        let older = try CannedServer(answer: #"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"Doctor"}}"#)
        let places = ["/closing": closing.path, "/older": older.path]
        var found = ""
        var heading = ""
        var block: String?
        for line in written.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("## ") { heading = String(line.dropFirst(3)) }
            if line == "```console" {
                block = ""
            } else if let commands = block, line == "```" {
                served.service.failure.withLock { $0 = ErrorHandbook.injected[heading] }
                found += "```console\n" + Transcript.replay(commands, socket: served.path, places: places) + "```\n"
                served.service.failure.withLock { $0 = nil }
                block = nil
            } else if block != nil {
                block? += line + "\n"
            } else {
                found += line + "\n"
            }
        }
        found.removeLast()
        if Transcript.regenerates { try Fixtures.write(found, to: path) }
        #expect(found == written, "run the tests with BATON_REGENERATE=1 if this is how it should be, and look at the difference")
    }

    @Test("the error handbook has a paragraph with cause and remedy for every error", arguments: ErrorHandbook.names)
    func paragraphs(name: String) throws {
        let text = try Fixtures.read(Fixtures.repository + "/docs/errors.md")
        let sections = text.split(separator: "\n## ").filter { $0.hasPrefix("\(name)\n") }
        #expect(sections.count == 1)
        let section = try #require(sections.first)
        #expect(section.contains("**Cause.**") && section.contains("**Remedy.**") && section.contains("```console\n$ baton "))
    }
}

/// What docs/errors.md is about.
enum ErrorHandbook {
    static let names =
        Interface.supervisor.errors.map(\.name) + [
            "NoSupervisor", "ConnectionLost", "MachineFile", "Unreadable", "Unsuitable", "Interrupted", "NotAllUpgraded", "Usage", "VersionMismatch",
        ]

    /// Errors that no state of the stub leads to.
    static let injected: [String: ControlError] = [
        "NotPermitted": .notPermitted,
        "Malformed": .malformed(reason: "a call has no member \"priority\""),
        "Failed": .failed(reason: "the journal of web1 cannot be written: No space left on device"),
    ]
}
