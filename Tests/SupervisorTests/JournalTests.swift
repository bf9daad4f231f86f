import Control
import Handover
import LinuxSystem
import SystemPackage
import Testing

@testable import Supervisor

@Suite struct JournalTests {
    /// A journal in a file of its own, with three records.
    private func written() throws -> (path: String, bytes: [UInt8]) {
        let path = "/tmp/baton-journal-\(CurrentProcess.id)-\(SystemClock.monotonic())"
        let journal = try Journal(path: path)
        for kind in [JournalRecord.Kind.paused, .resumed, .ended] {
            try journal.append(JournalRecord(kind, at: 17, detail: "why: \"quotes\", ünïcode"))
        }
        return (path, try OwnedDescriptor.open(path).readAll(limit: 1 << 20))
    }

    private func rewrite(_ path: String, _ bytes: [UInt8]) throws {
        try OwnedDescriptor.open(path, .replace).writeAll(bytes)
    }

    @Test func recordsReadBackInOrder() throws {
        let (path, _) = try written()
        defer { try? FileSystem.remove(path) }
        #expect(try Journal.read(path: path).map(\.kind) == [.paused, .resumed, .ended])
        #expect(try Journal.read(path: path).first?.detail == "why: \"quotes\", ünïcode")
    }

    @Test func aTornLastLineIsDroppedAtEveryLength() throws {
        let (path, bytes) = try written()
        defer { try? FileSystem.remove(path) }
        let lastLine = bytes.dropLast().lastIndex(of: 10).map { $0 + 1 } ?? 0
        for length in lastLine..<bytes.count {
            try rewrite(path, Array(bytes[..<length]))
            #expect(try Journal.read(path: path).map(\.kind) == [.paused, .resumed])
        }
    }

    @Test func whatIsWrittenAfterATornLineIsReadAndTheTornLineIsNot() throws {
        let (path, bytes) = try written()
        defer { try? FileSystem.remove(path) }
        let lastLine = bytes.dropLast().lastIndex(of: 10).map { $0 + 1 } ?? 0
        for length in lastLine..<bytes.count {
            try rewrite(path, Array(bytes[..<length]))
            let journal = try Journal(path: path)
            for kind in [JournalRecord.Kind.soakEnded, .ended] { try journal.append(JournalRecord(kind, at: 18)) }
            // All but its newline is the whole line.
            let torn: [JournalRecord.Kind] = length == bytes.count - 1 ? [.ended] : []
            #expect(try Journal.read(path: path).map(\.kind) == [.paused, .resumed] + torn + [.soakEnded, .ended])
        }
    }

    @Test func aBadLineInTheMiddleIsDamageWhateverFollows() throws {
        let (path, bytes) = try written()
        defer { try? FileSystem.remove(path) }
        var damaged = bytes
        damaged[12] ^= 1
        try rewrite(path, damaged + [10])
        #expect(throws: Journal.Damage.self) { try Journal.read(path: path) }
    }

    @Test func aFlippedBitIsNamedWithItsLine() throws {
        let (path, bytes) = try written()
        defer { try? FileSystem.remove(path) }
        for index in stride(from: 0, to: bytes.count, by: 3) where bytes[index] != 10 {
            var damaged = bytes
            damaged[index] ^= 0x04
            try rewrite(path, damaged)
            #expect(throws: (any Error).self, "byte \(index)") { try Journal.read(path: path) }
        }
    }

    @Test func aHandoverIsAsItsSoakLeftIt() {
        func record(_ outcome: HandoverRecord.Outcome, at: Int) -> HandoverRecord {
            let image = ImageReference(version: "1", digest: "d")
            return HandoverRecord(
                machine: "m", kind: .upgrade, outcome: outcome, fromGeneration: 1, toGeneration: 2, fromImage: image, toImage: image,
                startedAtNanoseconds: at, totalNanoseconds: 1)
        }
        let records = [
            JournalRecord(.handoverEnded, at: 1, handover: record(.committed, at: 5)),
            JournalRecord(.handoverEnded, at: 2, handover: record(.aborted, at: 6)),
            JournalRecord(.soakEnded, at: 3, handover: record(.reverted, at: 5)),
        ]
        #expect(Journal.handovers(records).map(\.outcome) == [.reverted, .aborted])
    }
}

@Suite struct StepTimesTests {
    @Test func thePhasesOfABlackoutAddUp() {
        var times = StepTimes()
        times.begin(.park, at: 1000)
        times.end(.park, at: 1100)
        times.begin(.save, at: 1100)
        times.end(.save, at: 1500)
        times.begin(.load, at: 1600)
        times.end(.load, at: 2000)
        times.begin(.commit, at: 2010)
        times.end(.commit, at: 2020)
        times.begin(.running, at: 2100)
        times.end(.running, at: 2200)
        #expect(times.blackout == 1200)
        #expect(times.phases.reduce(0) { $0 + $1.nanoseconds } == 1200)
    }

    @Test func aHandoverThatNeverStoppedTheGuestHasNoBlackout() {
        var times = StepTimes()
        times.begin(.preflight)
        times.end(.preflight)
        #expect(times.blackout == nil)
        #expect(times.phases.isEmpty)
    }
}
