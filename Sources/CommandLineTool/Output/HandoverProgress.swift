internal import Control

/// The parts of a handover that an operator follows; each stands for several steps.
enum HandoverStage: String, CaseIterable {
    case preflight, prepare, settle, save, load, run, addresses, retire, soak

    init?(phase: String) {
        switch Phase(rawValue: phase) {
        case .preflight: self = .preflight
        case .spawn, .hello, .lend, .map, .populate, .build, .prepared: self = .prepare
        case .practise, .settle: self = .settle
        case .park, .save, .saved: self = .save
        case .load, .loaded: self = .load
        case .commit, .grant, .running: self = .run
        case .takeAddresses: self = .addresses
        case .fence, .retire: self = .retire
        case .soak: self = .soak
        case nil: return nil
        }
    }

    /// Its last step, whose end ends it.
    var last: Phase {
        switch self {
        case .preflight: .preflight
        case .prepare: .prepared
        case .settle: .settle
        case .save: .saved
        case .load: .loaded
        case .run: .running
        case .addresses: .takeAddresses
        case .retire: .retire
        case .soak: .soak
        }
    }
}

/// Turns steps into lines as they come: on a terminal the stage under way is redrawn in place, elsewhere a line appears when one is over.
struct HandoverProgress {
    private struct Stage {
        var nanoseconds = 0
        var detail: String?
        /// Steps begun and not ended, with the clock's time at their beginning.
        var open: [String: Int] = [:]
        var isWritten = false
    }

    private let style: Style
    private let columns: Int?
    private let soakNanoseconds: Int?
    private let clock: () -> Int
    private var stages: [HandoverStage: Stage] = [:]

    /// `columns`: the terminal's width, `nil` where there is none. `soakNanoseconds`: how long soak is meant to take.
    init(style: Style, columns: Int?, soakNanoseconds: Int?, clock: @escaping () -> Int) {
        self.style = style
        self.columns = columns
        self.soakNanoseconds = soakNanoseconds
        self.clock = clock
    }

    /// What to write for a step.
    mutating func take(_ step: Step) -> String {
        guard let name = HandoverStage(phase: step.phase) else { return "" }
        var lines = ""
        var stage = stages[name] ?? Stage()
        stage.detail = step.detail?.printable ?? stage.detail
        switch step.state {
        case .begin:
            // Said again while it is open, a step only has news of itself.
            stage.open[step.phase] = stage.open[step.phase] ?? clock()
            stages[name] = stage
            lines = writeFinished(before: name)
        case .end, .failed:
            stage.open[step.phase] = nil
            stage.nanoseconds += step.nanoseconds
            stages[name] = stage
            if step.state == .failed {
                lines = write(name, failedAt: step.phase)
            } else if step.phase == name.last.rawValue {
                lines = write(name)
            }
        }
        return erase + lines + live
    }

    /// What to write when nothing came for a while: the running stage, redrawn. Nothing where there is no terminal.
    func tick() -> String { columns == nil ? "" : erase + live }

    /// What to write at the end: stages over, and not yet written. When the handover went through, so did what was still open.
    mutating func finish(succeeded: Bool) -> String {
        if succeeded {
            for name in HandoverStage.allCases {
                guard var stage = stages[name], let begin = stage.open.values.min() else { continue }
                stage.nanoseconds += max(0, clock() - begin)
                stage.open = [:]
                stages[name] = stage
            }
        }
        return erase + writeFinished(before: nil)
    }

    private mutating func writeFinished(before later: HandoverStage?) -> String {
        var lines = ""
        for name in HandoverStage.allCases {
            if name == later { break }
            if let stage = stages[name], stage.open.isEmpty { lines += write(name) }
        }
        return lines
    }

    private mutating func write(_ name: HandoverStage, failedAt phase: String? = nil) -> String {
        guard var stage = stages[name], !stage.isWritten else { return "" }
        stage.isWritten = true
        stage.open = [:]
        stages[name] = stage
        let mark = phase == nil ? style.green("✔") : style.red("✘")
        let detail = [phase.flatMap { $0 == name.rawValue ? nil : "in \($0)" }, stage.detail].compactMap(\.self).joined(separator: ": ")
        return Self.line(name.rawValue, mark, Quantity.duration(stage.nanoseconds), detail)
    }

    private static func line(_ name: String, _ mark: String, _ duration: String, _ detail: String) -> String {
        let padded = name + String(repeating: " ", count: max(0, 11 - name.count))
        let time = String(repeating: " ", count: max(0, 8 - duration.count)) + duration
        return "  \(padded) \(mark) \(time)" + (detail.isEmpty ? "" : "   \(detail)") + "\n"
    }

    // The redrawn line.

    private var erase: String { columns == nil ? "" : "\r\u{1B}[2K" }

    private var live: String {
        guard let columns, let name = HandoverStage.allCases.last(where: { stages[$0]?.open.isEmpty == false }), let stage = stages[name],
            let newest = stage.open.max(by: { $0.value < $1.value })
        else { return "" }
        let elapsed = max(0, clock() - newest.value)
        if name == .soak, let total = soakNanoseconds, total > 0 {
            let full = min(10, elapsed * 10 / total)
            let bar = String(repeating: "▮", count: full) + String(repeating: "▯", count: 10 - full)
            let text = "  soak        \(bar) \(Quantity.duration(elapsed)) of \(Quantity.duration(total))   \(stage.detail ?? "healthy")"
            return String(text.prefix(columns - 1))
        }
        let line = Self.line(name.rawValue, "…", Quantity.duration(stage.nanoseconds + elapsed), newest.key)
        return String(line.dropLast().prefix(columns - 1))
    }
}
