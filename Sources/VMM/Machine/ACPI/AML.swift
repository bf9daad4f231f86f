internal import Wire

/// ACPI Machine Language in bytes, as far as this machine's definition block needs it (ACPI 6.5, chapter 20).
///
/// Every function returns the encoding of one term; terms are put together by concatenation.
enum AML {
    typealias Term = [UInt8]

    // MARK: Names and data

    /// A name of at most four characters in the scope around it; shorter ones are filled up with `_`.
    static func name(_ name: String) -> Term { Array((Array(name.utf8) + [UInt8](repeating: UInt8(ascii: "_"), count: 4)).prefix(4)) }

    /// The shortest form of a number.
    static func integer(_ value: UInt64) -> Term {
        switch value {
        case 0, 1: [UInt8(value)]  // ZeroOp, OneOp
        case ..<0x100: [0x0A, UInt8(value)]
        case ..<0x1_0000: [0x0B] + littleEndian(value, bytes: 2)
        case ..<0x1_0000_0000: [0x0C] + littleEndian(value, bytes: 4)
        default: [0x0E] + littleEndian(value, bytes: 8)
        }
    }

    static func string(_ text: String) -> Term { [0x0D] + Array(text.utf8) + [0] }

    static func buffer(_ bytes: [UInt8]) -> Term { [0x11] + sized(integer(UInt64(bytes.count)) + bytes) }

    /// At most 255 elements.
    static func package(_ elements: [Term]) -> Term { [0x12] + sized([UInt8(truncatingIfNeeded: elements.count)] + elements.joined()) }

    /// A compressed EISA identifier such as `PNP0A08`: three letters of five bits each, then four hexadecimal digits.
    static func eisaID(_ text: String) -> Term {
        let letters = text.utf8.prefix(3).reduce(UInt32(0)) { $0 << 5 | UInt32($1 & 0x1F) }
        let number = UInt32(text.dropFirst(3), radix: 16) ?? 0
        return integer(UInt64((letters << 16 | number & 0xFFFF).byteSwapped))
    }

    /// A UUID in the order of bytes that `ToUUID` gives it: the first three groups are little-endian.
    static func uuid(_ text: String) -> Term {
        let bytes = text.split(separator: "-").enumerated().flatMap { index, group -> [UInt8] in
            let value = UInt64(group, radix: 16) ?? 0
            let encoded = littleEndian(value, bytes: group.utf8.count / 2)
            return index < 3 ? encoded : encoded.reversed()
        }
        return buffer(bytes)
    }

    // MARK: Objects

    static func define(_ own: String, _ value: Term) -> Term { [0x08] + name(own) + value }

    static func scope(_ own: String, _ terms: [Term]) -> Term { [0x10] + sized(name(own) + terms.joined()) }

    static func device(_ own: String, _ terms: [Term]) -> Term { [0x5B, 0x82] + sized(name(own) + terms.joined()) }

    /// A method that only one thread at a time is in.
    static func method(_ own: String, arguments: UInt8, _ terms: [Term]) -> Term {
        [0x14] + sized(name(own) + [arguments & 7 | 1 << 3] + terms.joined())
    }

    // MARK: Statements and expressions

    static func argument(_ number: UInt8) -> Term { [0x68 + number] }
    static func local(_ number: UInt8) -> Term { [0x60 + number] }
    static func store(_ value: Term, in target: Term) -> Term { [0x70] + value + target }
    static func and(_ left: Term, _ right: Term, in target: Term) -> Term { [0x7B] + left + right + target }
    static func or(_ left: Term, _ right: Term, in target: Term) -> Term { [0x7D] + left + right + target }
    static func equal(_ left: Term, _ right: Term) -> Term { [0x93] + left + right }
    static func not(_ value: Term) -> Term { [0x92] + value }
    static func giveBack(_ value: Term) -> Term { [0xA4] + value }
    static func when(_ condition: Term, _ terms: [Term]) -> Term { [0xA0] + sized(condition + terms.joined()) }
    static func otherwise(_ terms: [Term]) -> Term { [0xA1] + sized(Array(terms.joined())) }

    /// Names 32 bits of a buffer.
    static func doubleWordField(_ own: String, of buffer: Term, at offset: UInt64) -> Term {
        [0x8A] + buffer + integer(offset) + name(own)
    }

    // MARK: Encoding

    /// A PkgLength, which counts itself, and what it measures.
    private static func sized(_ content: Term) -> Term {
        if content.count + 1 < 1 << 6 { return [UInt8(content.count + 1)] + content }
        for extra in 1...3 where content.count + 1 + extra < 1 << (4 + 8 * extra) {
            let length = UInt64(content.count + 1 + extra)
            return [UInt8(extra << 6) | UInt8(length & 0xF)] + littleEndian(length >> 4, bytes: extra) + content
        }
        preconditionFailure("a definition block of 256 MiB")
    }

    static func littleEndian(_ value: UInt64, bytes: Int) -> [UInt8] {
        (0..<bytes).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }
}
