package import Checkpoint
package import Wire

/// The stored state of ``VirtioEntropy``.
package struct VirtioEntropyState: Sendable, Equatable {
    /// Bytes given to the guest since power-on.
    package var delivered: UInt64 = 0

    package init(delivered: UInt64 = 0) { self.delivered = delivered }
}

extension VirtioEntropyState: DeviceState {
    package static let section = SectionRange("virtio-entropy", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) { writer.u64(delivered) }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) { delivered = try reader.u64() }
}
