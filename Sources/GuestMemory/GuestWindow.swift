internal import CLinux
internal import LinuxSystem

/// A stretch of guest RAM whose place has been looked up once, for rings that are read and written all the time.
///
/// Each load and store is one atomic access of the guest's memory: what is loaded does not change afterwards, and a store is seen whole.
@safe
package struct GuestWindow: @unchecked Sendable {
    // The mapping is shared memory of this process's and the guest's; accessed only by the atomic words below.
    private let mapping: SharedMapping
    private let offset: Int
    /// Bytes.
    package let count: Int

    fileprivate init(_ mapping: SharedMapping, offset: Int, count: Int) {
        self.mapping = mapping
        self.offset = offset
        self.count = count
    }

    private func place(_ position: Int, _ size: Int) -> Int {
        precondition(position >= 0 && size <= count - position && position % size == 0, "access outside the window or not aligned")
        return offset + position
    }

    // SAFETY (all): `place` has checked bounds and alignment against the mapping, which lives as long as this.

    /// Loads a little-endian word at an even position; later loads see at least what the guest stored before it.
    package func load16(at position: Int) -> UInt16 { unsafe cl_load16(mapping.pointer + place(position, 2)) }
    /// Loads a little-endian word at a position that 8 divides.
    package func load64(at position: Int) -> UInt64 { unsafe cl_load64(mapping.pointer + place(position, 8)) }
    /// Stores a word at an even position; whoever sees it sees all that was stored before.
    package func store(_ value: UInt16, at position: Int) { unsafe cl_store16(mapping.pointer + place(position, 2), value) }
    /// Stores a word at a position that 4 divides; whoever sees it sees all that was stored before.
    package func store(_ value: UInt32, at position: Int) { unsafe cl_store32(mapping.pointer + place(position, 4), value) }

    /// Orders all stores before this with all loads after it, as one side of an agreement about who wakes whom must.
    package static func fence() { cl_fence() }
}

extension GuestMemory {
    /// The window on `count` bytes at a guest-physical address. Words in it are aligned as far as that address is.
    package func window(at address: UInt64, count: Int) throws(GuestMemoryError) -> GuestWindow {
        guard count > 0, let offset = layout.offset(of: address, count: count) else { throw GuestMemoryError(address: address, count: count) }
        return GuestWindow(mapping, offset: offset, count: count)
    }
}
