internal import GuestMemory
internal import Handover
internal import LinuxSystem
internal import SystemPackage
internal import VFIO
internal import Wire

/// A stretch of RAM as devices see it: at the same addresses as the guest.
package struct DMAMapping: Sendable, Equatable {
    /// Where devices see it.
    package let address: UInt64
    /// Where it is in the memory object.
    package let offset: UInt64
    package let length: UInt64

    package static let limit = 4096

    package init(address: UInt64, offset: UInt64, length: UInt64) {
        self.address = address
        self.offset = offset
        self.length = length
    }

    init(from reader: inout WireReader) throws(WireError) {
        address = try reader.u64()
        let start = reader.offset
        offset = try reader.u64()
        length = try reader.u64()
        let (end, overflow) = offset.addingReportingOverflow(length)
        if overflow || length == 0 || length % 4096 != 0 || offset % 4096 != 0 || end > MachineModel.maximumMemory {
            throw .invalid(offset: start, field: "the extent of a mapping for DMA", value: length)
        }
    }

    func encode(to writer: inout WireWriter) {
        for value in [address, offset, length] { writer.u64(value) }
    }

    /// All of RAM.
    static func all(of layout: GuestMemoryLayout) -> [DMAMapping] {
        layout.regions.map { DMAMapping(address: $0.address, offset: UInt64($0.offset), length: UInt64($0.length)) }
    }
}

/// Where a machine's passed-through devices reach its RAM. The mappings outlive the worker that made them.
enum DMASpace: Sendable {
    case iommufd(IOMMUFD, addressSpace: UInt32)
    case container(VFIOContainer)

    /// The spaces of a machine's devices, each once.
    static func all(of devices: [VFIOSpecification], _ lent: LentBackings) throws(VMMError) -> [DMASpace] {
        var spaces: [DMASpace] = []
        var seen: Set<VFIOSpecification.Backend> = []
        for device in devices where seen.insert(device.backend).inserted {
            switch device.backend {
            case .iommufd(let ioas): spaces.append(.iommufd(IOMMUFD(adopting: try lent.find(.iommufd)), addressSpace: ioas))
            case .container: spaces.append(.container(VFIOContainer(adopting: try lent.find(.vfioContainer))))
            }
        }
        return spaces
    }

    /// Maps stretches of RAM, which is pinned by it and charged to this process. At power-on, before the guest runs.
    func map(_ mappings: [DMAMapping], of memory: SharedDescriptor, _ ram: GuestMemory) throws(VMMError) {
        let total = mappings.reduce(0) { $0 + $1.length }
        for mapping in mappings {
            try checkUsable(mapping)
            do throws(Errno) {
                switch self {
                case .iommufd(let iommufd, let addressSpace):
                    try iommufd.map(
                        memory.descriptor, start: mapping.offset, length: mapping.length, at: mapping.address, in: addressSpace)
                case .container(let container):
                    try container.map(address: ram.mapping.address + UInt(mapping.offset), iova: mapping.address, size: mapping.length)
                }
            } catch {
                throw VMMError("mapping \(mapping.length) bytes of RAM at \(hexadecimal(mapping.address)) for DMA: \(Self.reason(error, total))")
            }
        }
    }

    private func checkUsable(_ mapping: DMAMapping) throws(VMMError) {
        let found: [ClosedRange<UInt64>]? =
            switch self {
            case .iommufd(let iommufd, let addressSpace): try? iommufd.usable(in: addressSpace).ranges
            case .container(let container): try? container.information().ranges
            }
        guard let ranges = found, !ranges.isEmpty else { return }  // the kernel says so when it maps
        let last = mapping.address + (mapping.length - 1)
        if ranges.contains(where: { $0.contains(mapping.address) && $0.contains(last) }) { return }
        throw VMMError(
            "RAM at \(hexadecimal(mapping.address)) to \(hexadecimal(last)) cannot be reached by the machine's devices: the host's IOMMU leaves them "
                + ranges.map { "\(hexadecimal($0.lowerBound)) to \(hexadecimal($0.upperBound))" }.joined(separator: ", "))
    }

    /// Takes over addresses and charges of what a worker before this one has mapped. May be repeated, also after it has failed half way; devices
    /// go on in any case.
    ///
    /// - Parameter peers: what of devices others reach.
    func take(_ mappings: [DMAMapping], _ ram: GuestMemory, _ peers: [PeerMapping]) throws(VMMError) {
        let total = mappings.reduce(0) { $0 + $1.length }
        switch self {
        case .iommufd(let iommufd, _):
            do throws(Errno) { try iommufd.changeProcess() } catch {
                throw VMMError("taking over the charge for \(total) bytes of DMA memory: \(Self.reason(error, total))")
            }
        case .container(let container):
            // All at once, if all are valid. Otherwise somebody was here before, and each is voided that is not.
            let areVoid = (try? container.voidAddresses()) != nil
            for mapping in mappings {
                if !areVoid { _ = try? container.voidAddress(iova: mapping.address, size: mapping.length) }
                do throws(Errno) {
                    try container.bringAddress(ram.mapping.address + UInt(mapping.offset), iova: mapping.address, size: mapping.length)
                } catch {
                    throw VMMError(
                        "taking over \(mapping.length) bytes of DMA memory at \(hexadecimal(mapping.address)): \(Self.reason(error, total))")
                }
            }
            // Those the guest has made or moved in this process are not void, and those that could not be made are not there.
            for peer in peers {
                if !areVoid { _ = try? container.voidAddress(iova: peer.address, size: peer.size) }
                try? container.bringAddress(peer.mapping.address, iova: peer.address, size: peer.size)
            }
        }
    }

    private static func reason(_ error: Errno, _ total: UInt64) -> String {
        guard error == .noMemory else { return "\(error)" }
        return "\(error): it needs \(total) bytes of locked memory (RLIMIT_MEMLOCK), and this worker may lock \(CurrentProcess.memoryLockLimit); "
            + "raise the limit of the supervisor"
    }
}
