internal import Control

/// Handovers and events, as the command line shows them.
struct HistoryText {
    let style: Style
    /// Nanoseconds since 1970.
    let now: Int

    func history(_ handovers: [HandoverRecord]) -> String {
        if handovers.isEmpty { return "No handovers yet.\n" }
        var table = Table([
            .init("WHEN"), .init("KIND"), .init("GEN"), .init("IMAGE"), .init("OUTCOME"), .init("BLACKOUT", .right), .init("TOTAL", .right),
            .init("WHY"),
        ])
        for record in handovers {
            table.add([
                "\(Quantity.ago(now - record.startedAtNanoseconds))", "\(record.kind.rawValue)",
                "\(record.fromGeneration) → \(record.toGeneration)", "\(record.fromImage.version) → \(record.toImage.version)",
                .init(record.outcome.rawValue, colour(record.outcome)), "\(record.blackoutNanoseconds.map(Quantity.duration) ?? "–")",
                "\(Quantity.duration(record.totalNanoseconds))", "\(record.reason ?? "")",
            ])
        }
        return table.render(style)
    }

    /// Each handover with its blackout as bars, one a phase.
    func phases(_ handovers: [HandoverRecord]) -> String {
        if handovers.isEmpty { return "No handovers yet.\n" }
        return handovers.map(phases).joined(separator: "\n")
    }

    private func phases(_ record: HandoverRecord) -> String {
        let title =
            "\(Quantity.ago(now - record.startedAtNanoseconds))  \(record.kind.rawValue)  "
            + "\(record.fromImage.version) → \(record.toImage.version)  \(record.outcome.rawValue)"
        var lines = style.bold(title.printable) + "\n"
        let hold = record.ioHoldNanoseconds.map { "  I/O held \(Quantity.duration($0)), the blackout included\n" } ?? ""
        guard let blackout = record.blackoutNanoseconds, blackout > 0 else {
            return lines + hold.replacing(", the blackout included", with: "") + "  the guest was not stopped\n"
        }
        let attributed = record.phases.reduce(0) { $0 + $1.nanoseconds }
        var table = Table([.init(""), .init("", .right), .init("")])
        for phase in record.phases + [.init(name: "unattributed", nanoseconds: max(0, blackout - attributed))] {
            let width = min(40, (phase.nanoseconds * 40 + blackout / 2) / blackout)
            table.add([
                "  \(phase.name)", "\(Quantity.duration(phase.nanoseconds))", .init(String(repeating: "▇", count: width), style.cyan),
            ])
        }
        table.add(["  blackout", .init(Quantity.duration(blackout), style.bold), ""])
        lines += table.render(style)
        return lines + hold
    }

    /// The line that ends an upgrade.
    func outcome(_ record: HandoverRecord) -> String {
        var parts = [colour(record.outcome)(record.outcome.rawValue)]
        if let blackout = record.blackoutNanoseconds {
            let budget = record.budgetNanoseconds.map { " (budget \(Quantity.duration($0)))" } ?? ""
            parts.append("blackout \(style.bold(Quantity.duration(blackout)))\(budget)")
        }
        if let hold = record.ioHoldNanoseconds { parts.append("I/O hold \(Quantity.duration(hold))") }
        parts.append("total \(Quantity.duration(record.totalNanoseconds))")
        return "  " + parts.joined(separator: "   ") + "\n"
    }

    func event(_ event: Event) -> String {
        let who = [event.machine, event.generation.map { "g\($0)" }].compactMap(\.self).joined(separator: " ").printable
        let padding = String(repeating: " ", count: max(0, 12 - who.count))
        return "\(style.dim(Quantity.time(event.atNanoseconds)))  \(style.bold(who))\(padding)  \(what(event))\n"
    }

    private func what(_ event: Event) -> String {
        if let step = event.step {
            let state = step.state == .failed ? style.red("failed") : step.state.rawValue
            let after = step.state == .begin ? "" : " \(Quantity.duration(step.nanoseconds))"
            return "\(step.phase.printable) \(state)\(after)" + (step.detail.map { "  \($0.printable)" } ?? "")
        }
        if let record = event.handover {
            let blackout = record.blackoutNanoseconds.map { ", blackout \(Quantity.duration($0))" } ?? ""
            return "\(record.kind.rawValue) \(record.fromImage.version.printable) → \(record.toImage.version.printable) "
                + "\(colour(record.outcome)(record.outcome.rawValue))\(blackout)" + (record.reason.map { ": \($0.printable)" } ?? "")
        }
        return event.kind.rawValue.replacing("_", with: "-") + (event.detail.map { ": \($0.printable)" } ?? "")
    }

    private func colour(_ outcome: HandoverRecord.Outcome) -> (String) -> String {
        switch outcome {
        case .committed: style.green
        case .aborted, .reverted: style.yellow
        case .failed: style.red
        }
    }
}
