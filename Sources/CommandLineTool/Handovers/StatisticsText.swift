internal import Control

/// Statistics over handovers, as the command line shows them.
struct StatisticsText {
    let style: Style

    func text(_ statistics: HandoverStatistics) -> String {
        if statistics.handovers == 0 { return "No handovers yet.\n" }
        let span = [statistics.firstAtNanoseconds, statistics.lastAtNanoseconds].compactMap { $0.map(Quantity.time) }.joined(separator: " to ")
        var text =
            style.bold("\(count(statistics.handovers, "handover")) of \(count(statistics.machines, "machine"))") + "  "
            + style.dim(span) + "\n  " + outcomes(statistics.outcomes)
        if statistics.overBudget > 0 { text += "   " + style.yellow("\(statistics.overBudget) over the blackout budget") }
        text += "\n\n"
        guard statistics.blackout.count > 0 || statistics.ioHold.count > 0 else { return text + "No guest was stopped.\n\n" + images(statistics) }
        var table = Table(
            [.init("")] + ["COUNT", "P50", "P90", "P99", "MAX"].map { .init($0, .right) })
        row(&table, "blackout", statistics.blackout, style.bold)
        if statistics.ioHold.count > 0 { row(&table, "I/O hold", statistics.ioHold) }
        row(&table, "whole handover", statistics.upgrade)
        section(&table, "in the blackout", statistics.blackoutPhases)
        section(&table, "beside it", statistics.upgradePhases)
        return text + table.render(style) + "\n" + images(statistics)
    }

    private func section(_ table: inout Table, _ title: String, _ phases: [HandoverStatistics.Phase]) {
        if phases.isEmpty { return }
        table.add([.init(title, style.dim)] + [Table.Cell](repeating: "", count: 5))
        for phase in phases { row(&table, "  \(phase.name)", phase.durations) }
    }

    private func row(_ table: inout Table, _ name: String, _ values: Distribution, _ colour: @escaping (String) -> String = { $0 }) {
        let figures = values.count == 0 ? ["–", "–", "–", "–"] : [50, 90, 99, 100].map { Quantity.fine(values.percentile($0)) }
        table.add([.init(name, colour), "\(values.count)"] + figures.map { .init($0, colour) })
    }

    private func images(_ statistics: HandoverStatistics) -> String {
        var table = Table(
            [.init("IMAGES")] + ["COMMITTED", "ABORTED", "REVERTED", "FAILED", "BLACKOUT P50", "P99", "MAX"].map { .init($0, .right) })
        for pair in statistics.images {
            let blackout = pair.blackout.count == 0 ? ["–", "–", "–"] : [50, 99, 100].map { Quantity.fine(pair.blackout.percentile($0)) }
            let outcomes = [pair.outcomes.committed, pair.outcomes.aborted, pair.outcomes.reverted, pair.outcomes.failed]
            table.add(["\(pair.from) → \(pair.to)"] + outcomes.map { "\($0)" } + blackout.map { "\($0)" })
        }
        return table.render(style)
    }

    private func outcomes(_ outcomes: HandoverStatistics.Outcomes) -> String {
        let parts: [(Int, String, (String) -> String)] = [
            (outcomes.committed, "committed", style.green), (outcomes.aborted, "aborted", style.yellow),
            (outcomes.reverted, "reverted", style.yellow), (outcomes.failed, "failed", style.red),
        ]
        return parts.map { number, name, colour in number > 0 ? colour("\(number) \(name)") : style.dim("0 \(name)") }.joined(separator: "   ")
    }

    private func count(_ number: Int, _ what: String) -> String { "\(number) \(what)\(number == 1 ? "" : "s")" }
}
