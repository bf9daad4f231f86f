/// Reads little-endian values from a private buffer, each within its bounds.
///
/// Nothing is allocated before its length has been checked against what is there.
package struct WireReader: Sendable {
    private let bytes: [UInt8]
    /// Where the next value begins.
    package private(set) var offset: Int
    private let end: Int

    /// Reads `bytes`, or the part of it in `range`.
    package init(_ bytes: [UInt8], range: Range<Int>? = nil) {
        let range = (range ?? 0..<bytes.count).clamped(to: 0..<bytes.count)
        self.bytes = bytes
        offset = range.lowerBound
        end = range.upperBound
    }

    /// Bytes not yet read.
    package var remaining: Int { end - offset }

    package mutating func u8() throws(WireError) -> UInt8 { try integer() }
    package mutating func u16() throws(WireError) -> UInt16 { try integer() }
    package mutating func u32() throws(WireError) -> UInt32 { try integer() }
    package mutating func u64() throws(WireError) -> UInt64 { try integer() }
    package mutating func i64() throws(WireError) -> Int64 { Int64(bitPattern: try integer()) }

    /// One byte, 0 or 1.
    package mutating func bool() throws(WireError) -> Bool {
        let start = offset
        switch try u8() {
        case 0: return false
        case 1: return true
        case let other: throw .invalid(offset: start, field: "a truth value", value: UInt64(other))
        }
    }

    /// `count` bytes as they are.
    package mutating func raw(_ count: Int) throws(WireError) -> [UInt8] {
        try need(count)
        defer { offset += count }
        return Array(bytes[offset..<offset + count])
    }

    /// Passes over `count` bytes.
    package mutating func skip(_ count: Int) throws(WireError) {
        try need(count)
        offset += count
    }

    /// A 32-bit length, then that many bytes.
    package mutating func blob(limit: Int) throws(WireError) -> [UInt8] {
        let range = try blobRange(limit: limit)
        return Array(bytes[range])
    }

    /// A 32-bit length, then that many bytes, skipped: where they are.
    package mutating func blobRange(limit: Int) throws(WireError) -> Range<Int> {
        let start = offset
        let length = try u32()
        if length > limit { throw .tooLong(offset: start, length: UInt64(length), limit: limit) }
        try need(Int(length))
        defer { offset += Int(length) }
        return offset..<offset + Int(length)
    }

    /// A 32-bit length, then that many bytes of UTF-8.
    package mutating func string(limit: Int = 4096) throws(WireError) -> String {
        let start = offset
        let text = try blob(limit: limit)
        guard let string = String(validating: text, as: UTF8.self) else { throw .notUTF8(offset: start) }
        return string
    }

    /// A 32-bit count of elements that follow, each of which has at least one byte: a count beyond what is left cannot be honest.
    package mutating func count(limit: Int) throws(WireError) -> Int {
        let start = offset
        let count = try u32()
        if count > limit || count > remaining { throw .tooLong(offset: start, length: UInt64(count), limit: min(limit, remaining)) }
        return Int(count)
    }

    /// A 32-bit count, then that many elements, each read by `element`.
    package mutating func list<Element>(
        limit: Int, _ element: (inout WireReader) throws(WireError) -> Element
    ) throws(WireError) -> [Element] {
        let count = try count(limit: limit)
        var elements: [Element] = []
        elements.reserveCapacity(count)
        for _ in 0..<count { elements.append(try element(&self)) }
        return elements
    }

    /// One byte: whether a value follows, then the value.
    package mutating func optional<Value>(
        _ value: (inout WireReader) throws(WireError) -> Value
    ) throws(WireError) -> Value? {
        try bool() ? try value(&self) : nil
    }

    /// Everything must have been read.
    package func finish() throws(WireError) {
        if remaining > 0 { throw .trailing(offset: offset, count: remaining) }
    }

    private func need(_ count: Int) throws(WireError) {
        if count < 0 || count > remaining { throw .truncated(offset: offset, needed: count, available: remaining) }
    }

    private mutating func integer<Value: FixedWidthInteger & UnsignedInteger>() throws(WireError) -> Value {
        let size = MemoryLayout<Value>.size
        try need(size)
        var value: Value = 0
        for index in 0..<size { value |= Value(bytes[offset + index]) &<< Value(8 &* index) }
        offset += size
        return value
    }
}
