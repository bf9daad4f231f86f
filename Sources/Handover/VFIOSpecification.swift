internal import Wire

/// A passed-through device. What the guest sees of it the device says itself.
package struct VFIOSpecification: Sendable, Equatable, Hashable {
    /// Its address on the host, as in `0000:06:00.0`, or the UUID of a mediated device. For people; nobody opens anything by it.
    package var address: String
    package var backend: Backend
    /// How many eventfds are lent for its vectors, at most ``vectorLimit``. A device may have more vectors; the guest is shown as many as these.
    package var vectors: UInt16

    /// How its memory is mapped for DMA.
    package enum Backend: Sendable, Equatable, Hashable {
        /// In this address space of the lent ``ResourceKind/iommufd``, to which the device is attached.
        case iommufd(ioas: UInt32)
        /// In the lent ``ResourceKind/vfioContainer``, in which its group is.
        case container
    }

    package static let addressLimit = 64
    /// What MSI-X has at most.
    package static let vectorLimit: UInt16 = 2048

    package init(address: String, backend: Backend, vectors: UInt16) {
        self.address = address
        self.backend = backend
        self.vectors = vectors
    }

    init(from reader: inout WireReader) throws(WireError) {
        address = try reader.printable(limit: Self.addressLimit, "a device's address")
        let start = reader.offset
        switch try reader.u8() {
        case 1: backend = .iommufd(ioas: try reader.u32())
        case 2: backend = .container
        case let other: throw .invalid(offset: start, field: "how a device's memory is mapped", value: UInt64(other))
        }
        vectors = try reader.u16(in: 0...Self.vectorLimit, "the number of a device's vectors")
    }

    func encode(to writer: inout WireWriter) {
        writer.string(address)
        switch backend {
        case .iommufd(let ioas):
            writer.u8(1)
            writer.u32(ioas)
        case .container: writer.u8(2)
        }
        writer.u16(vectors)
    }
}
