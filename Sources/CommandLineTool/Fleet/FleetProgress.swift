internal import Control

/// Shows many upgrades as they go: a line for each that is over, and on a terminal below them, redrawn in place, those under way.
struct FleetProgress {
    private let style: Style
    /// The terminal's width, `nil` where there is none.
    private let columns: Int?
    private let total: Int
    private let nameWidth: Int
    private var over = 0
    /// Lines that the next redraw replaces.
    private var drawn = 0

    init(style: Style, columns: Int?, total: Int, nameWidth: Int) {
        self.style = style
        self.columns = columns
        self.total = total
        self.nameWidth = min(nameWidth, 40)
    }

    var isLive: Bool { columns != nil }

    /// A line that stays.
    mutating func finished(_ name: String, _ result: Result<HandoverRecord, CommandFailure>) -> String {
        over += 1
        let line: String
        switch result {
        case .success(let record):
            let blackout = record.blackoutNanoseconds.map { "   blackout \(Quantity.duration($0))" } ?? ""
            line =
                "\(padded(name))  \(style.green("✔"))  \(record.fromImage.version.printable) → \(record.toImage.version.printable)\(blackout)"
                + "   total \(Quantity.duration(record.totalNanoseconds))"
        case .failure(let failure):
            let explanation = Explanation(failure)
            let what = explanation.what.hasPrefix("\(name): ") ? String(explanation.what.dropFirst(name.count + 2)) : explanation.what
            line = "\(padded(name))  \(style.red("✘"))  \(([what] + explanation.why.prefix(1)).joined(separator: "; ").printable)"
        }
        return end() + "\(line)\n"
    }

    /// Those under way, drawn again.
    mutating func redraw(_ machines: [MachineUpgrade], now: Int) -> String {
        guard let columns else { return "" }
        if machines.isEmpty { return end() }
        var lines = machines.map { machine in
            "\(padded(machine.name))  …  \(machine.phase.printable), \(Quantity.duration(now - machine.began))"
        }
        lines.append("\(over) of \(total) over, \(machines.count) under way")
        defer { drawn = lines.count }
        return end() + lines.map { style.dim(String($0.prefix(columns - 1))) + "\n" }.joined()
    }

    /// Takes away what was drawn to be redrawn.
    mutating func end() -> String {
        defer { drawn = 0 }
        return drawn == 0 ? "" : "\u{1B}[\(drawn)A\r\u{1B}[J"
    }

    private func padded(_ name: String) -> String { name.printable + String(repeating: " ", count: max(0, nameWidth - name.count)) }
}
