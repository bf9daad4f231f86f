package import Checkpoint
package import Wire

/// What of a network device is carried from worker to worker beside its queues.
package struct VirtioNetworkState: Sendable, Equatable {
    /// Queue pairs that the driver uses, at least 1.
    package var pairsInUse: UInt16

    package init(pairsInUse: UInt16) { self.pairsInUse = pairsInUse }
}

extension VirtioNetworkState: DeviceState {
    package static let section = SectionRange("virtio-network", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) { writer.u16(pairsInUse) }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        let start = reader.offset
        pairsInUse = try reader.u16()
        if !(1...32).contains(pairsInUse) { throw .invalid(offset: start, field: "queue pairs in use", value: UInt64(pairsInUse)) }
    }
}
