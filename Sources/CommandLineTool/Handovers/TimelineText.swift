internal import Control

/// A handover as a picture: one row a part, each with its microseconds, its share and a bar at its place in time.
struct TimelineText {
    let style: Style
    /// Nanoseconds since 1970.
    let now: Int
    private let columns: Int

    /// `columns`: what there is; the picture takes between 80 and 120.
    init(style: Style, now: Int, columns: Int) {
        self.style = style
        self.now = now
        self.columns = min(max(columns, 80), 120)
    }

    /// What is drawn as a stopped guest in the picture of the whole; steps of the blackout stand there when they led to none.
    private static let stopped = Set([Timeline.blackoutName] + [Phase.park, .save, .load, .commit, .grant].map(\.rawValue))
    private static let nameWidth = 15
    private static let numberWidth = 11
    private static let shareWidth = 8
    /// Between the last number and the bars, and before the first name.
    private static let margins = 5
    private var barWidth: Int { columns - Self.nameWidth - Self.numberWidth - Self.shareWidth - Self.margins }

    func text(_ handovers: [HandoverRecord]) -> String {
        if handovers.isEmpty { return "No handovers yet.\n" }
        let legend = style.dim(
            "▒ the guest runs   █ it is stopped   ░ its requests to disks and networks wait\n"
                + "→ step: the message that led to it, and the wake-up of who took it\n")
        return handovers.map(text).joined(separator: "\n") + "\n" + legend
    }

    private func text(_ record: HandoverRecord) -> String {
        let timeline = Timeline(record)
        let history = HistoryText(style: style, now: now)
        let title = "\(record.machine)  \(record.kind.rawValue)  \(record.fromImage.version) → \(record.toImage.version)".printable
        var text =
            "\(style.bold(title))  generation \(record.fromGeneration) → \(record.toGeneration)  "
            + "\(Quantity.time(record.startedAtNanoseconds))\n" + history.outcome(record)
        if let reason = record.reason { text += "  \(reason.printable)\n" }
        text += "\n" + picture("handover", timeline.upgrade, hold: timeline.ioHold) { Self.stopped.contains($0.name) }
        guard let blackout = timeline.blackout else {
            let isStopped = timeline.upgrade.parts.contains { Self.stopped.contains($0.name) }
            return text + "\n  " + (isStopped ? "the guest was stopped, and ran on in the worker it had" : "the guest was not stopped") + "\n"
        }
        return text + "\n" + picture("blackout", blackout, hold: nil) { _ in true }
    }

    private func picture(_ name: String, _ window: Timeline.Window, hold: Timeline.Part?, isStopped: (Timeline.Part) -> Bool) -> String {
        let scale = Quantity.duration(window.nanoseconds)
        let gap = String(repeating: " ", count: max(1, barWidth - 1 - scale.count))
        let titles = Self.right(name, Self.nameWidth) + Self.left("µs", Self.numberWidth) + Self.left("share", Self.shareWidth)
        var text = style.dim("  \(titles)   0\(gap)\(scale)") + "\n"
        for part in window.parts {
            text += isStopped(part) ? row(part, in: window, "█", style.red) : row(part, in: window, "▒", style.cyan)
        }
        let share = Double(window.unattributedNanoseconds) / Double(max(1, window.nanoseconds))
        text += line("unattributed", window.unattributedNanoseconds, share, "")
        text += line("total", window.nanoseconds, 1, "", style.bold)
        if let hold { text += row(hold, in: window, "░", style.yellow) }
        return text
    }

    private func row(_ part: Timeline.Part, in window: Timeline.Window, _ glyph: Character, _ colour: (String) -> String) -> String {
        let begin = part.beginNanoseconds - window.beginNanoseconds
        let length = max(1, window.nanoseconds)
        let from = min(barWidth - 1, begin * barWidth / length)
        let cells = max(1, min(barWidth - from, ((part.nanoseconds ?? 0) * barWidth + length / 2) / length))
        // Half a cell and less is a stroke, but for what the picture is about.
        let isThin = (part.nanoseconds ?? 0) * barWidth * 2 < length && glyph == "▒"
        let bar = colour(String(repeating: isThin ? "▏" : glyph, count: cells))
        return line(part.name, part.nanoseconds, part.share, String(repeating: " ", count: from) + bar)
    }

    private func line(
        _ name: String, _ nanoseconds: Int?, _ share: Double?, _ bar: String, _ colour: (String) -> String = { $0 }
    ) -> String {
        let number = nanoseconds.map(Quantity.microseconds) ?? "no end"
        let text =
            Self.right(name.printable, Self.nameWidth) + Self.left(number, Self.numberWidth)
            + Self.left(share.map(Quantity.percent) ?? "", Self.shareWidth)
        return "  " + colour(text) + (bar.isEmpty ? "" : "   " + bar) + "\n"
    }

    private static func left(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
    private static func right(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }
}
