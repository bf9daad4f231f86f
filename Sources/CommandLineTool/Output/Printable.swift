extension String {
    /// The text without what a terminal would obey: images and guests choose parts of what is shown, and must not choose colours,
    /// titles or keystrokes. Line ends become blanks, other control characters a replacement character.
    var printable: String {
        guard unicodeScalars.contains(where: \.isControl) else { return self }
        var text = ""
        for scalar in unicodeScalars {
            if !scalar.isControl {
                text.unicodeScalars.append(scalar)
            } else {
                text += scalar == "\n" || scalar == "\t" ? " " : "\u{FFFD}"
            }
        }
        return text
    }
}

extension Unicode.Scalar {
    /// C0, DEL, C1, and the marks that reorder text.
    fileprivate var isControl: Bool {
        switch value {
        case 0..<0x20, 0x7F..<0xA0, 0x202A...0x202E, 0x2066...0x2069: true
        default: false
        }
    }
}
