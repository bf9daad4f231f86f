internal import Wire

/// The stored state of a queue: what the driver has set, and how far both sides have come. Nothing is in flight.
package struct VirtqueueState: Sendable, Equatable {
    /// What the driver has set; a power of two once it is enabled.
    package var size: UInt16 = 0
    package var isEnabled = false
    /// MSI-X vector; 0xFFFF for none.
    package var vector: UInt16 = .max
    /// Guest-physical addresses of descriptor table, available ring, used ring.
    package var descriptors: UInt64 = 0
    package var available: UInt64 = 0
    package var used: UInt64 = 0
    /// Index of the next chain to pop.
    package var nextAvailable: UInt16 = 0
    /// Index of the next element of the used ring.
    package var nextUsed: UInt16 = 0
    /// The used index when it was last decided whether to interrupt.
    package var signalled: UInt16 = 0

    package init() {}

    func encode(to writer: inout WireWriter) {
        writer.u16(size)
        writer.bool(isEnabled)
        writer.u16(vector)
        for address in [descriptors, available, used] { writer.u64(address) }
        for index in [nextAvailable, nextUsed, signalled] { writer.u16(index) }
    }

    init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        size = try reader.u16()
        if size & (size &- 1) != 0 { throw .invalid(offset: start, field: "the size of a queue", value: UInt64(size)) }
        isEnabled = try reader.bool()
        vector = try reader.u16()
        descriptors = try reader.u64()
        available = try reader.u64()
        used = try reader.u64()
        nextAvailable = try reader.u16()
        nextUsed = try reader.u16()
        signalled = try reader.u16()
    }
}
