/// A strict reader of one JSON text (RFC 8259), for input nobody vouches for.
///
/// Stricter than the Codable decoder: it refuses duplicate members, integers beyond 64 bits (which that one silently turns into
/// fractions), nesting deeper than ``maximumDepth``, lone surrogates, invalid UTF-8 and anything after the value. It never traps.
package struct JSONParser {
    /// Lists and objects inside each other.
    package static let maximumDepth = 32

    private let bytes: [UInt8]
    private var index = 0

    private init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// The one value in `bytes`.
    package static func parse(_ bytes: [UInt8]) throws(JSONFault) -> JSONValue {
        var parser = JSONParser(bytes)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.index == bytes.count else { throw parser.fault("something follows the value") }
        return value
    }

    private func fault(_ reason: String, at offset: Int? = nil) -> JSONFault {
        JSONFault(offset: offset ?? index, reason: reason)
    }

    private var current: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { index += 1 }
    }

    private mutating func accept(_ byte: UInt8) -> Bool {
        skipSpace()
        guard current == byte else { return false }
        index += 1
        return true
    }

    private mutating func value(depth: Int) throws(JSONFault) -> JSONValue {
        skipSpace()
        guard let byte = current else { throw fault("the text ends where a value is expected") }
        switch byte {
        case UInt8(ascii: "{"): return try object(depth: try deeper(depth))
        case UInt8(ascii: "["): return try array(depth: try deeper(depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: return try word()
        }
    }

    private mutating func deeper(_ depth: Int) throws(JSONFault) -> Int {
        guard depth < Self.maximumDepth else { throw fault("nested deeper than \(Self.maximumDepth)") }
        index += 1
        return depth + 1
    }

    private mutating func object(depth: Int) throws(JSONFault) -> JSONValue {
        var members: [String: JSONValue] = [:]
        if accept(UInt8(ascii: "}")) { return .object(members) }
        repeat {
            skipSpace()
            let start = index
            guard current == UInt8(ascii: "\"") else { throw fault("a member name is expected") }
            let name = try string()
            guard accept(UInt8(ascii: ":")) else { throw fault("a colon is expected") }
            let member = try value(depth: depth)
            guard members.updateValue(member, forKey: name) == nil else { throw fault("the member is there twice", at: start) }
        } while accept(UInt8(ascii: ","))
        guard accept(UInt8(ascii: "}")) else { throw fault("a comma or } is expected") }
        return .object(members)
    }

    private mutating func array(depth: Int) throws(JSONFault) -> JSONValue {
        var elements: [JSONValue] = []
        if accept(UInt8(ascii: "]")) { return .array(elements) }
        repeat { elements.append(try value(depth: depth)) } while accept(UInt8(ascii: ","))
        guard accept(UInt8(ascii: "]")) else { throw fault("a comma or ] is expected") }
        return .array(elements)
    }

    private mutating func word() throws(JSONFault) -> JSONValue {
        for (word, value) in [("true", JSONValue.bool(true)), ("false", .bool(false)), ("null", .null)]
        where bytes[index...].starts(with: word.utf8) {
            index += word.utf8.count
            return value
        }
        throw fault("not a JSON value")
    }
}

// Numbers.
extension JSONParser {
    private mutating func digits() -> Int {
        let start = index
        while let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
        return index - start
    }

    private mutating func number() throws(JSONFault) -> JSONValue {
        let start = index
        if current == UInt8(ascii: "-") { index += 1 }
        let leadingZero = current == UInt8(ascii: "0")
        let whole = digits()
        guard whole > 0, !leadingZero || whole == 1 else { throw fault("not a number", at: start) }
        var exact = true
        if current == UInt8(ascii: ".") {
            exact = false
            index += 1
            guard digits() > 0 else { throw fault("not a number", at: start) }
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            exact = false
            index += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { index += 1 }
            guard digits() > 0 else { throw fault("not a number", at: start) }
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if exact {
            guard let value = Int64(text) else { throw fault("an integer beyond 64 bits", at: start) }
            return .integer(value)
        }
        guard let value = Double(text), value.isFinite else { throw fault("a number out of range", at: start) }
        return .fraction(value)
    }
}

// Strings.
extension JSONParser {
    private mutating func string() throws(JSONFault) -> String {
        let start = index
        index += 1
        var content: [UInt8] = []
        while let byte = current {
            index += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: content, as: UTF8.self) else { throw fault("a string that is not UTF-8", at: start) }
                return text
            case UInt8(ascii: "\\"): content += String(try escape()).utf8
            case ..<0x20: throw fault("a control character in a string", at: index - 1)
            default: content.append(byte)
            }
        }
        throw fault("a string that does not end", at: start)
    }

    private mutating func escape() throws(JSONFault) -> Unicode.Scalar {
        guard let byte = current else { throw fault("an escape that does not end") }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try scalar()
        default: throw fault("an unknown escape", at: index - 1)
        }
    }

    /// The scalar of a `\u` escape, of two of them where they are a surrogate pair.
    private mutating func scalar() throws(JSONFault) -> Unicode.Scalar {
        let start = index
        let first = try unit()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard bytes[index...].starts(with: "\\u".utf8) else { throw fault("half a surrogate pair", at: start) }
        index += 2
        let second = try unit()
        guard (0xD800..<0xDC00).contains(first), (0xDC00..<0xE000).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { throw fault("half a surrogate pair", at: start) }
        return scalar
    }

    private mutating func unit() throws(JSONFault) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw fault("an escape without four hexadecimal digits")
            }
            unit = unit << 4 | UInt32(digit)
            index += 1
        }
        return unit
    }
}
