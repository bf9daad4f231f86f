@testable import CommandLineTool
import Control
import ControlTestSupport
import Testing

@Suite("Figures of handovers")
struct HandoverFigureTests {
    private func record(_ steps: [(Phase, Int, Int?)], total: Int = 1_000, blackout: Int? = nil, hold: Int? = nil) -> HandoverRecord {
        var record = StubData.record("a", kind: .upgrade)
        record.totalNanoseconds = total
        record.blackoutNanoseconds = blackout
        record.ioHoldNanoseconds = hold
        record.steps = steps.map { .init(phase: $0.rawValue, beginNanoseconds: $1, endNanoseconds: $2) }
        return record
    }

    @Test("a gap between two sides is the message between them, one on the same side is unattributed, and the sum is the blackout")
    func attribution() throws {
        let timeline = Timeline(
            record(
                [
                    (.park, 100, 110), (.save, 115, 150), (.saved, 160, 160), (.load, 170, 200), (.loaded, 205, 205), (.commit, 206, 210),
                    (.grant, 210, 220), (.running, 220, 300),
                ], blackout: 200))
        let window = try #require(timeline.blackout)
        #expect(
            window.parts.map(\.name) == ["park", "save", "→ saved", "→ load", "load", "→ loaded", "commit", "grant", "running"])
        #expect(window.unattributedNanoseconds == 6)
        #expect(window.parts.reduce(0) { $0 + ($1.nanoseconds ?? 0) } + window.unattributedNanoseconds == 200)
        #expect(window.parts[2] == .init(name: "→ saved", beginNanoseconds: 150, nanoseconds: 10, share: 0.05))
    }

    @Test("what the supervisor hears of a step that somebody has gone on from already is no part of the way")
    func heardOfLate() throws {
        let timeline = Timeline(
            record(
                [
                    (.park, 100, 110), (.save, 110, 150), (.saved, 180, 180), (.load, 160, 200), (.loaded, 205, 205), (.commit, 205, 210),
                    (.running, 220, 300),
                ], blackout: 200))
        let window = try #require(timeline.blackout)
        #expect(window.parts.map(\.name) == ["park", "save", "→ load", "load", "→ loaded", "commit", "→ running", "running"])
        #expect(window.unattributedNanoseconds == 0)
    }

    @Test("the blackout is one part of the whole, its steps are not told twice, and overlapping steps count once")
    func whole() {
        let timeline = Timeline(
            record(
                [(.preflight, 0, 100), (.map, 100, nil), (.prepared, 101, 400), (.settle, 300, 500), (.park, 600, 610), (.running, 690, 700)],
                blackout: 100, hold: 350))
        #expect(timeline.upgrade.parts.map(\.name) == ["preflight", "prepared", "settle", "blackout"])
        #expect(timeline.upgrade.unattributedNanoseconds == 1_000 - 100 - 399 - 100)
        #expect(timeline.ioHold == .init(name: "I/O hold", beginNanoseconds: 350, nanoseconds: 350, share: 0.35))
    }

    @Test("a handover that was aborted shows where it stood, and a step without end has no length")
    func aborted() {
        let timeline = Timeline(record([(.preflight, 0, 100), (.prepared, 100, 400), (.settle, 400, nil)], hold: 20))
        #expect(timeline.blackout == nil)
        #expect(timeline.upgrade.parts.last == .init(name: "settle", beginNanoseconds: 400, nanoseconds: nil, share: nil))
        #expect(timeline.ioHold?.beginNanoseconds == 400)
    }

    @Test("times that no honest clock gives are no reason to fail", arguments: [0, -5, 1 << 40])
    func nonsense(total: Int) {
        let steps: [(Phase, Int, Int?)] = [(.park, 50, -3), (.save, -10, 900), (.running, 10, 2), (.retire, 1 << 50, 1 << 51)]
        let timeline = Timeline(record(steps, total: total, blackout: 7, hold: -1))
        let text = TimelineText(style: Style(for: CapturedStream(isTerminal: false), environment: [:]), now: 0, columns: 80)
        #expect(timeline.upgrade.unattributedNanoseconds >= 0)
        #expect(!text.text([record(steps, total: total, blackout: 7, hold: -1)]).isEmpty)
    }

    @Test("no line of a picture is wider than it may be", arguments: [(10, 80), (80, 80), (93, 93), (120, 120), (300, 120)])
    func width(columns: Int, most: Int) {
        let text = TimelineText(style: Style(for: CapturedStream(isTerminal: false), environment: [:]), now: StubService.now, columns: columns)
        let lines = text.text(StubData.history("web1")).split(separator: "\n")
        #expect((lines.map(\.count).max() ?? 0) <= most)
        // Bars reach the edge, and are as long as what they stand for.
        #expect(lines.contains { $0.hasSuffix("█") && $0.count == most })
    }

    @Test("percentiles are those of the sorted list, to 0.2 %", arguments: [1, 2, 10, 99, 1_000])
    func percentiles(count: Int) {
        var distribution = Distribution()
        let values = (0..<count).map { ($0 * 7_919) % count * 1_237 + 300_000 }
        for value in values { distribution.add(value) }
        let sorted = values.sorted()
        for percent in [50, 90, 99] {
            let exact = sorted[max(1, (count * percent + 99) / 100) - 1]
            #expect(abs(distribution.percentile(percent) - exact) * 500 <= exact)
        }
        #expect(distribution.percentile(100) == sorted.last && distribution.count == count)
    }

    @Test("a distribution stays small however many durations it has taken, and takes any number")
    func bounded() {
        var distribution = Distribution()
        for value in [0, -1, .max] { distribution.add(value) }
        #expect(distribution.percentile(50) == 0 && distribution.maximum == .max)
        for value in 0..<100_000 { distribution.add(value &* 104_729 % 50_000_000) }
        #expect(distribution.sizesKept < 256 * 20)
    }

    @Test("statistics count every outcome, and time only what came as far as a running guest")
    func statistics() throws {
        var statistics = HandoverStatistics()
        statistics.add(StubData.history("web1"))
        statistics.add([])
        var slow = StubData.record("db2", kind: .rollback)
        slow.outcome = .reverted
        slow.blackoutNanoseconds = 60_000_000
        (slow.fromImage, slow.toImage) = (slow.toImage, slow.fromImage)
        statistics.add([slow])
        #expect(statistics.machines == 2 && statistics.handovers == 3 && statistics.overBudget == 1)
        #expect(statistics.outcomes.committed == 1 && statistics.outcomes.aborted == 1 && statistics.outcomes.reverted == 1)
        #expect(statistics.blackout.count == 2 && statistics.ioHold.count == 3 && statistics.upgrade.count == 2)
        #expect(statistics.images.map { "\($0.from) \($0.to)" } == ["0.1.0 0.2.0", "0.2.0 0.1.0"])
        #expect(statistics.blackoutPhases.last?.name == "unattributed" && statistics.upgradePhases.last?.name == "unattributed")
        let save = try #require(statistics.blackoutPhases.first { $0.name == "save" })
        #expect(save.durations.percentile(100) == 80_000)
    }
}

@Suite("Upgrades of many machines")
struct FleetTests {
    private static let plain = Style(for: CapturedStream(isTerminal: false), environment: [:])

    private func report(_ errors: [ControlError?], notStarted: [String] = []) -> FleetReport {
        var report = FleetReport(version: "0.2.0", skipped: [])
        for (index, error) in errors.enumerated() {
            report.results.append(
                .init(
                    machine: "m\(index)",
                    error.map { .failure(.control($0)) } ?? .success(StubData.record("m\(index)", kind: .upgrade))))
        }
        report.notStarted = notStarted
        return report
    }

    @Test("the exit status is that of the worst of them")
    func worst() {
        let refused = ControlError.refused(machine: "a", reasons: [])
        let aborted = ControlError.aborted(machine: "a", step: "load", reason: "")
        let reverted = ControlError.reverted(machine: "a", reason: "")
        #expect(report([nil, nil]).failure == nil)
        #expect(report([nil, refused]).failure?.status == .refused)
        #expect(report([aborted, refused, nil]).failure?.status == .aborted)
        #expect(report([aborted, reverted, refused]).failure?.status == .reverted)
        #expect(report([.failed(reason: "lost"), reverted]).failure?.status == .failed)
        #expect(report([.machineNotFound(machine: "a"), nil]).failure?.status == .notFound)
    }

    @Test("an interrupt that left nothing undone is no failure, one that did is")
    func interrupted() {
        var done = report([nil])
        done.interrupted = true
        #expect(done.failure == nil)
        done.notStarted = ["m7"]
        #expect(done.failure?.status == .interrupted && done.failure?.why == ["not begun: m7"])
    }

    @Test("on a terminal those under way are drawn below those that are over, and redrawn in place")
    func redrawn() throws {
        let served = try ServedSocket()
        var progress = FleetProgress(style: Self.plain, columns: 30, total: 3, nameWidth: 4)
        let machine = MachineUpgrade("web1", client: try SupervisorClient(connectingToOneOf: [served.path]), now: 0)
        machine.phase = "populate"
        let first = progress.redraw([machine], now: 2_000_000_000)
        #expect(first == "web1  …  populate, 2.0 s\n0 of 3 over, 1 under way\n")
        let over = progress.finished("db2", .success(StubData.record("db2", kind: .upgrade)))
        #expect(over == "\u{1B}[2A\r\u{1B}[Jdb2   ✔  0.1.0 → 0.2.0   blackout 0.38 ms   total 725 ms\n")
        #expect(progress.end().isEmpty)
        machine.phase = String(repeating: "x", count: 99)
        #expect(progress.redraw([machine], now: 0).split(separator: "\n").allSatisfy { $0.count < 30 })
        var silent = FleetProgress(style: Self.plain, columns: nil, total: 3, nameWidth: 4)
        #expect(silent.redraw([machine], now: 0).isEmpty)
    }
}
