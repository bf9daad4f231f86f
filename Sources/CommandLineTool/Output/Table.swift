/// Rows in aligned columns, two spaces apart. Colours do not disturb it: they are put on after padding.
struct Table {
    enum Alignment { case left, right }

    struct Column {
        let title: String
        let alignment: Alignment

        init(_ title: String, _ alignment: Alignment = .left) {
            self.title = title
            self.alignment = alignment
        }
    }

    /// Text, and how it is coloured once its place is known.
    struct Cell: ExpressibleByStringInterpolation {
        let text: String
        let colour: (String) -> String

        init(_ text: String, _ colour: @escaping (String) -> String = { $0 }) {
            self.text = text.printable
            self.colour = colour
        }

        init(stringLiteral value: String) { self.init(value) }
    }

    private let columns: [Column]
    private var rows: [[Cell]] = []

    init(_ columns: [Column]) { self.columns = columns }

    mutating func add(_ row: [Cell]) { rows.append(row) }

    /// The lines, the last column unpadded. Without titles there is no header.
    func render(_ style: Style) -> String {
        let header = columns.map { Cell($0.title, style.dim) }
        let all = columns.contains { !$0.title.isEmpty } ? [header] + rows : rows
        let widths = columns.indices.map { index in all.map { $0[index].text.count }.max() ?? 0 }
        return all.map { line($0, widths) + "\n" }.joined()
    }

    private func line(_ row: [Cell], _ widths: [Int]) -> String {
        var line = ""
        var pending = ""
        for (index, cell) in row.enumerated() where !cell.text.isEmpty || index + 1 < row.count {
            let padding = String(repeating: " ", count: widths[index] - cell.text.count)
            let isRight = columns[index].alignment == .right
            // Spaces wait until something follows them: no line ends in blanks.
            if !cell.text.isEmpty {
                line += pending + (isRight ? padding : "") + cell.colour(cell.text)
                pending = isRight ? "  " : padding + "  "
            } else {
                pending += padding + "  "
            }
        }
        return line
    }
}
