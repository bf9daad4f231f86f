@testable import CommandLineTool
import Control
import Testing

@Suite("Output")
struct OutputTests {
    @Test(
        "durations read like durations",
        arguments: [
            (0, "0 ns"), (812, "812 ns"), (8_400, "8 µs"), (41_000, "0.04 ms"), (380_000, "0.38 ms"), (999_999, "1.0 ms"), (2_300_000, "2.3 ms"),
            (9_990_000, "10 ms"), (12_000_000, "12 ms"), (699_600_000, "700 ms"), (1_240_000_000, "1.2 s"), (18_000_000_000, "18 s"),
            (125_000_000_000, "2 min 05 s"), (11_400_000_000_000, "3 h 10 min"),
        ])
    func durations(nanoseconds: Int, text: String) { #expect(Quantity.duration(nanoseconds) == text) }

    @Test(
        "sizes read like sizes",
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (41_984, "41 KiB"), (1536 << 20, "1.5 GiB"), (8 << 30, "8 GiB"), (2 << 40, "2 TiB"),
            (.max, "8388607 TiB"),
        ])
    func sizes(bytes: Int, text: String) { #expect(Quantity.bytes(bytes) == text) }

    @Test(
        "points in time are dates",
        arguments: [
            (0, "1970-01-01 00:00:00.000Z"), (951_826_154_120_000_000, "2000-02-29 12:09:14.120Z"),
            (1_790_000_000_000_000_000, "2026-09-21 14:13:20.000Z"), (4_107_542_399_000_000_000, "2100-02-28 23:59:59.000Z"),
        ])
    func times(nanoseconds: Int, text: String) { #expect(Quantity.time(nanoseconds) == text) }

    @Test("uptime keeps two units", arguments: [(12, "12s"), (250, "4m 10s"), (11_100, "3h 05m"), (3_549_600, "41d 02h")])
    func uptimes(seconds: Int, text: String) { #expect(Quantity.uptime(seconds * 1_000_000_000) == text) }

    @Test(
        "a slip of the finger is recognised, another word is not",
        arguments: [
            ("vcpu", "vcpus"), ("memroy", "memory"), ("Boot", "boot"), ("banana", nil),
        ])
    func suggestions(word: String, meant: String?) {
        #expect(Suggestion.nearest(to: word, among: ["vcpus", "memory", "boot", "name"]) == meant)
    }

    @Test("a step that says again that it has begun goes on, and one still open when all is well is over")
    func repeatedBegin() {
        let time = Counter()
        var progress = HandoverProgress(
            style: Style(for: CapturedStream(isTerminal: false), environment: [:]), columns: 80, soakNanoseconds: 2_000_000_000,
            clock: { time.now })
        _ = progress.take(Step(machine: "a", phase: .soak, state: .begin, nanoseconds: 0))
        time.now = 1_000_000_000
        let live = progress.take(Step(machine: "a", phase: .soak, state: .begin, nanoseconds: 1_000_000_000, detail: "healthy"))
        #expect(live == "\r\u{1B}[2K  soak        ▮▮▮▮▮▯▯▯▯▯ 1.0 s of 2.0 s   healthy")
        time.now = 2_000_000_000
        #expect(progress.finish(succeeded: true) == "\r\u{1B}[2K  soak        ✔    2.0 s   healthy\n")
    }

    @Test("a line under way never passes the edge of the terminal")
    func narrow() {
        var progress = HandoverProgress(
            style: Style(for: CapturedStream(isTerminal: false), environment: [:]), columns: 20, soakNanoseconds: nil, clock: { 0 })
        let live = progress.take(Step(machine: "a", phase: .populate, state: .begin, nanoseconds: 0))
        #expect(live.split(separator: "\u{1B}[2K").last?.count ?? 0 < 20)
    }

    @Test("what an image or a guest says of itself cannot command the terminal")
    func printable() {
        #expect("0.2.0\u{1B}]0;x\u{7}".printable == "0.2.0\u{FFFD}]0;x\u{FFFD}")
        #expect("a\nb\u{9B}1m\u{202E}".printable == "a b\u{FFFD}1m\u{FFFD}")
        #expect("wéb → ✔".printable == "wéb → ✔")
        let table = { () -> String in
            var table = Table([.init("A")])
            table.add([.init("x\r\u{1B}[2J")])
            return table.render(Style(for: CapturedStream(isTerminal: false), environment: [:]))
        }()
        #expect(!table.contains("\u{1B}") && !table.contains("\r"))
    }

    @Test("the socket that was named is the only one tried")
    func sockets() {
        #expect(SocketPath.candidates(named: "/a", environment: ["BATON_SOCKET": "/b"]) == ["/a"])
        #expect(SocketPath.candidates(named: nil, environment: ["BATON_SOCKET": "/b"]) == ["/b"])
        #expect(
            SocketPath.candidates(named: nil, environment: ["XDG_RUNTIME_DIR": "/run/user/7"])
                == ["/run/baton/io.baton.Supervisor", "/run/user/7/baton/io.baton.Supervisor"])
    }
}

/// A clock that stands still until told.
private final class Counter {
    var now = 0
}
