/// The words of a Swift file that the compiler sees: comments and string literals left out, what is interpolated kept.
struct SourceCode {
    struct Word: Equatable {
        let text: String
        let line: Int
        /// The last character before it on any line, and the first after it, that is no white space.
        let before: UInt8?
        let after: UInt8?
    }

    struct Import: Equatable {
        let module: String
        let line: Int
    }

    let words: [Word]

    init(_ source: String) {
        var stripper = Stripper(Array(source.utf8))
        words = Self.words(of: stripper.strip())
        imports = Self.imports(in: words)
    }

    /// Every imported module, whatever attributes and access levels stand before it: `@testable import A`, `package import struct B.C`.
    let imports: [Import]

    private static func imports(in words: [Word]) -> [Import] {
        words.indices.compactMap { index in
            guard words[index].isKeyword("import") else { return nil }
            var next = index + 1
            if next + 1 < words.count, declarationKinds.contains(words[next].text) { next += 1 }
            guard next < words.count else { return nil }
            return Import(module: words[next].text, line: words[index].line)
        }
    }

    /// The lines on which something is said to be unsafe.
    var unsafeLines: [Int] { words.filter { $0.text == "unsafe" }.map(\.line) }

    private static let declarationKinds: Set = ["actor", "class", "enum", "func", "let", "macro", "protocol", "struct", "typealias", "var"]

    private static func words(of code: [UInt8]) -> [Word] {
        var words: [Word] = []
        var line = 1
        var before: UInt8?
        var index = 0
        while index < code.count {
            let byte = code[index]
            if byte == UInt8(ascii: "\n") { line += 1 }
            guard isWordByte(byte) else {
                if !isSpace(byte) { before = byte }
                index += 1
                continue
            }
            let end = code[index...].firstIndex { !isWordByte($0) } ?? code.count
            let after = code[end...].first { !isSpace($0) }
            words.append(Word(text: String(decoding: code[index..<end], as: UTF8.self), line: line, before: before, after: after))
            before = code[end - 1]
            index = end
        }
        return words
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: byte == UInt8(ascii: "_") || byte >= 0x80
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
}

extension SourceCode.Word {
    /// Not a member, a label or a quoted identifier of the same spelling.
    fileprivate func isKeyword(_ keyword: String) -> Bool {
        text == keyword && before != UInt8(ascii: ".") && before != UInt8(ascii: "`") && after != UInt8(ascii: ":")
    }
}

/// Blanks comments and literals byte by byte, keeping every newline where it is.
private struct Stripper {
    private enum Context {
        /// How many parentheses are open; in an interpolation the one more that closes ends it.
        case code(open: Int)
        case string(hashes: Int, isMultiline: Bool)
    }

    private let source: [UInt8]
    private var position = 0
    private var result: [UInt8] = []
    private var contexts: [Context] = [.code(open: 0)]

    init(_ source: [UInt8]) {
        self.source = source
        result.reserveCapacity(source.count)
    }

    mutating func strip() -> [UInt8] {
        while position < source.count, let context = contexts.last {
            switch context {
            case .code(let open): takeCode(open)
            case .string(let hashes, let isMultiline): takeString(hashes, isMultiline)
            }
        }
        return result
    }

    /// Whether `count` bytes from `offset` on are all this one.
    private func sees(_ byte: Unicode.Scalar, _ count: Int = 1, at offset: Int = 0) -> Bool {
        let start = position + offset
        guard start + count <= source.count else { return false }
        for index in start..<start + count where source[index] != UInt8(ascii: byte) { return false }
        return true
    }

    private mutating func blank(_ count: Int) {
        for _ in 0..<count where position < source.count {
            result.append(source[position] == UInt8(ascii: "\n") ? UInt8(ascii: "\n") : UInt8(ascii: " "))
            position += 1
        }
    }

    private mutating func keep() {
        result.append(source[position])
        position += 1
    }

    private mutating func takeCode(_ open: Int) {
        switch source[position] {
        case UInt8(ascii: "/") where sees("/", 2):
            while position < source.count, source[position] != UInt8(ascii: "\n") { blank(1) }
        case UInt8(ascii: "/") where sees("*", at: 1): skipBlockComment()
        case UInt8(ascii: "\""), UInt8(ascii: "#"):
            let hashes = source[position...].prefix { $0 == UInt8(ascii: "#") }.count
            guard sees("\"", at: hashes) else { return keep() }
            let isMultiline = sees("\"", 3, at: hashes)
            contexts.append(.string(hashes: hashes, isMultiline: isMultiline))
            blank(hashes + (isMultiline ? 3 : 1))
        case UInt8(ascii: "("):
            contexts[contexts.count - 1] = .code(open: open + 1)
            keep()
        case UInt8(ascii: ")"):
            if open == 0, contexts.count > 1 { contexts.removeLast() } else { contexts[contexts.count - 1] = .code(open: open - 1) }
            keep()
        default: keep()
        }
    }

    private mutating func skipBlockComment() {
        var depth = 0
        repeat {
            if sees("/"), sees("*", at: 1) {
                depth += 1
                blank(2)
            } else if sees("*"), sees("/", at: 1) {
                depth -= 1
                blank(2)
            } else {
                blank(1)
            }
        } while depth > 0 && position < source.count
    }

    private mutating func takeString(_ hashes: Int, _ isMultiline: Bool) {
        let quotes = isMultiline ? 3 : 1
        if sees("\\"), sees("#", hashes, at: 1) {
            let isInterpolation = sees("(", at: 1 + hashes)
            blank(2 + hashes)
            if isInterpolation { contexts.append(.code(open: 0)) }
        } else if sees("\"", quotes), sees("#", hashes, at: quotes) {
            blank(quotes + hashes)
            contexts.removeLast()
        } else {
            blank(1)
        }
    }
}
