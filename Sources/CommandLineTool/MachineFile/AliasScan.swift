/// Finds anchors, aliases and tags in YAML text before anything expands them.
///
/// A few lines of aliases can stand for billions of nodes, and a machine file needs none. This looks only at places where a value may
/// begin, so that an ampersand inside a text is just that.
struct AliasScan {
    struct Finding: Equatable {
        let line: Int
        let column: Int
        let character: Character
    }

    private var line = 1
    private var column = 0
    /// A value may begin here: only blanks and indicators came before it.
    private var atValue = true
    /// An indicator that counts only if a blank follows it.
    private var indicator = false
    /// `[` and `{` that are open: only inside them a comma separates values.
    private var flowDepth = 0
    private var quote: Unicode.Scalar?
    private var isEscaped = false
    private var inComment = false
    private var previous: Unicode.Scalar = "\n"

    /// The first anchor (`&`), alias (`*`) or tag (`!`) in `text`.
    static func first(in text: String) -> Finding? {
        var scan = AliasScan()
        for scalar in text.unicodeScalars {
            if let finding = scan.take(scalar) { return finding }
            scan.previous = scalar
        }
        return nil
    }

    private mutating func take(_ scalar: Unicode.Scalar) -> Finding? {
        column += 1
        if scalar == "\n" {
            endLine()
        } else if inComment {
            return nil
        } else if let open = quote {
            takeQuoted(scalar, until: open)
        } else if scalar == " " || scalar == "\t" {
            atValue = atValue || indicator
            indicator = false
        } else if atValue, scalar == "&" || scalar == "*" || scalar == "!" {
            return Finding(line: line, column: column, character: Character(scalar))
        } else {
            takePlain(scalar)
        }
        return nil
    }

    private mutating func endLine() {
        line += 1
        column = 0
        inComment = false
        indicator = false
        atValue = atValue || quote == nil
    }

    private mutating func takeQuoted(_ scalar: Unicode.Scalar, until open: Unicode.Scalar) {
        if isEscaped {
            isEscaped = false
        } else if scalar == "\\", open == "\"" {
            isEscaped = true
        } else if scalar == open {
            quote = nil
        }
    }

    private mutating func takePlain(_ scalar: Unicode.Scalar) {
        let couldBegin = atValue
        atValue = false
        indicator = false
        switch scalar {
        case "#": inComment = previous == " " || previous == "\n" || previous == "\t"
        case "\"", "'": quote = couldBegin ? scalar : nil
        case "[", "{":
            guard couldBegin else { return }
            flowDepth += 1
            atValue = true
        case "]", "}": flowDepth = max(0, flowDepth - 1)
        case ",": atValue = flowDepth > 0
        // Directly after a quoted key the colon needs no blank.
        case ":" where previous == "\"" || previous == "'": atValue = true
        case ":", "-", "?": indicator = true
        default: break
        }
    }
}
