/// One buffer of a driver: segments of guest RAM for the device to read, then segments for it to write. Copied out of the ring once and
/// checked: every segment has bytes and lies in one region of RAM, and there are at most ``maximumSegments``.
///
/// Segments may overlap, and what is in them changes when the guest likes. Reused with ``Virtqueue/pop(into:)`` it allocates nothing.
package struct DescriptorChain: Sendable, Equatable {
    /// Bytes of guest RAM.
    package struct Segment: Sendable, Equatable {
        /// Guest-physical.
        package let address: UInt64
        package let count: Int

        package init(address: UInt64, count: Int) {
            self.address = address
            self.count = count
        }
    }

    /// The most segments of a chain, those of an indirect table included.
    package static let maximumSegments = 1024

    /// Those to read first, then those to write.
    package internal(set) var segments: [Segment] = []
    /// How many of ``segments`` are to read.
    package internal(set) var readableCount = 0
    /// Bytes to read.
    package internal(set) var readableBytes = 0
    /// Bytes to write.
    package internal(set) var writableBytes = 0
    /// For giving it back.
    package internal(set) var ticket = VirtqueueTicket(head: 0, life: 0)

    package init() {}

    /// Segments to read, in order.
    package var readable: ArraySlice<Segment> { segments[..<readableCount] }
    /// Segments to write, in order.
    package var writable: ArraySlice<Segment> { segments[readableCount...] }
}

/// Names a chain that was popped and is in flight.
package struct VirtqueueTicket: Sendable, Equatable {
    /// Index of its first descriptor.
    package let head: UInt16
    /// Which life of the queue it is from: what was popped before a reset is completed into nothing.
    let life: UInt32
}
