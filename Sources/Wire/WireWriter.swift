/// Writes little-endian values to a private buffer.
package struct WireWriter: Sendable {
    package private(set) var bytes: [UInt8] = []

    /// `capacity` bytes are set aside, so that writing that much allocates nothing.
    package init(capacity: Int = 0) {
        bytes.reserveCapacity(capacity)
    }

    package var count: Int { bytes.count }

    /// Forgets what was written and keeps the memory.
    package mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

    package mutating func u8(_ value: UInt8) { bytes.append(value) }
    package mutating func u16(_ value: UInt16) { integer(value) }
    package mutating func u32(_ value: UInt32) { integer(value) }
    package mutating func u64(_ value: UInt64) { integer(value) }
    package mutating func i64(_ value: Int64) { integer(UInt64(bitPattern: value)) }
    package mutating func bool(_ value: Bool) { bytes.append(value ? 1 : 0) }

    /// Bytes as they are.
    package mutating func raw(_ content: [UInt8]) { bytes += content }
    package mutating func raw(_ content: ArraySlice<UInt8>) { bytes += content }
    package mutating func zeros(_ count: Int) { bytes.append(contentsOf: repeatElement(0, count: count)) }

    /// A 32-bit length, then the bytes.
    package mutating func blob(_ content: [UInt8]) {
        u32(UInt32(clamping: content.count))
        bytes += content
    }

    /// A 32-bit length, then what `append` adds.
    package mutating func blob(_ append: (inout [UInt8]) -> Void) {
        let start = count
        u32(0)
        append(&bytes)
        patch(u32: UInt32(clamping: count - start - 4), at: start)
    }

    /// A 32-bit length, then UTF-8.
    package mutating func string(_ text: String) {
        let utf8 = text.utf8
        u32(UInt32(clamping: utf8.count))
        bytes += utf8
    }

    /// A 32-bit count, then the elements.
    package mutating func list<Element>(_ elements: [Element], _ write: (inout WireWriter, Element) -> Void) {
        u32(UInt32(clamping: elements.count))
        for element in elements { write(&self, element) }
    }

    /// One byte: whether there is a value, then the value.
    package mutating func optional<Value>(_ value: Value?, _ write: (inout WireWriter, Value) -> Void) {
        bool(value != nil)
        if let value { write(&self, value) }
    }

    /// Overwrites four bytes written before, as for a length known only afterwards.
    package mutating func patch(u32 value: UInt32, at offset: Int) {
        for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value &>> UInt32(8 &* index)) }
    }

    /// Overwrites eight bytes written before.
    package mutating func patch(u64 value: UInt64, at offset: Int) {
        for index in 0..<8 { bytes[offset + index] = UInt8(truncatingIfNeeded: value &>> UInt64(8 &* index)) }
    }

    private mutating func integer<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size { bytes.append(UInt8(truncatingIfNeeded: value &>> Value(8 &* index))) }
    }
}
