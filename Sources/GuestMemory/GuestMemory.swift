package import LinuxSystem

/// An access to guest-physical addresses that are not RAM.
package struct GuestMemoryError: Error, Sendable, Equatable, CustomStringConvertible {
    package let address: UInt64
    package let count: Int

    package init(address: UInt64, count: Int) {
        self.address = address
        self.count = count
    }

    package var description: String { "\(count) bytes at guest address 0x\(String(address, radix: 16)) are not RAM" }
}

/// A guest's RAM by guest-physical address.
///
/// The guest changes it at any time, so bytes are copied in and out and nothing refers into it; an integer is fetched once.
package final class GuestMemory: Sendable {
    package let layout: GuestMemoryLayout
    /// The whole memory object: offset 0 is the first byte of the first region.
    package let mapping: SharedMapping

    /// MADV_DONTDUMP.
    private static let leaveOutOfDumps: CInt = 16

    /// Takes over a mapping and leaves it out of core dumps: what a guest keeps in its RAM is not for whoever reads those.
    ///
    /// - Parameter mapping: as long as the layout's size.
    package init(_ layout: GuestMemoryLayout, mapping: SharedMapping) {
        precondition(mapping.length == layout.size, "the mapping is not the RAM's size")
        try? mapping.advise(Self.leaveOutOfDumps, at: 0, count: mapping.length)  // cannot fail on a whole mapping
        self.layout = layout
        self.mapping = mapping
    }

    /// Where a region is in this process, for a KVM memory slot.
    package func hostAddress(of region: GuestRegion) -> UInt {
        precondition(region.offset >= 0 && region.length <= mapping.length - region.offset, "not a region of this memory")
        return mapping.address + UInt(region.offset)
    }

    /// Copies bytes out of the guest.
    package func read(at address: UInt64, count: Int) throws(GuestMemoryError) -> [UInt8] {
        mapping.copyOut(at: try offset(address, count), count: count)
    }

    /// Copies bytes into the guest.
    package func write(_ bytes: [UInt8], at address: UInt64) throws(GuestMemoryError) {
        mapping.copyIn(bytes.span, at: try offset(address, bytes.count))
    }

    /// Copies a stretch of `bytes` into the guest.
    package func write(_ bytes: Span<UInt8>, at address: UInt64) throws(GuestMemoryError) {
        mapping.copyIn(bytes, at: try offset(address, bytes.count))
    }

    /// Fetches a little-endian integer once.
    package func read<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type = Value.self, at address: UInt64) throws(GuestMemoryError) -> Value {
        let offset = try offset(address, MemoryLayout<Value>.size)
        // SAFETY: bounds were checked; any bytes are a valid integer.
        return Value(littleEndian: unsafe mapping.pointer.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    /// Stores a little-endian integer.
    package func write<Value: FixedWidthInteger & BitwiseCopyable>(integer value: Value, at address: UInt64) throws(GuestMemoryError) {
        let offset = try offset(address, MemoryLayout<Value>.size)
        // SAFETY: bounds were checked.
        unsafe mapping.pointer.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
    }

    /// Where bytes at a guest-physical address are in the mapping.
    func offset(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Int {
        guard let offset = layout.offset(of: address, count: count) else {
            throw GuestMemoryError(address: address, count: count)
        }
        return offset
    }
}
