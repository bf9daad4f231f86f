internal import CLinux
package import LinuxSystem
package import SystemPackage

/// What a device may do with memory that is mapped for it.
package struct DMAAccess: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let read = DMAAccess(rawValue: 1)
    package static let write = DMAAccess(rawValue: 2)
    package static let readWrite: DMAAccess = [.read, .write]
}

/// `/dev/vfio/vfio`: the I/O address space of the groups in it (linux/vfio.h; drivers/vfio/container.c, vfio_iommu_type1.c).
///
/// Its state belongs to the open file. Whoever is given the descriptor goes on where it stands: configured already, it is only adopted.
package struct VFIOContainer: Sendable {
    package let file: SharedDescriptor

    /// Where containers come from.
    package static let path = "/dev/vfio/vfio"

    /// Takes a descriptor as it is, configured or not.
    package init(adopting file: SharedDescriptor) { self.file = file }

    /// An empty container. `EINVAL`: the kernel speaks another version of the interface than 0, the only one there is.
    package static func open() throws(Errno) -> VFIOContainer {
        let container = VFIOContainer(adopting: SharedDescriptor(try OwnedDescriptor.open(path, .readWrite)))
        if try check(cl_vfio_api_version(container.file.number)) != 0 { throw Errno.invalidArgument }
        return container
    }

    /// What VFIO_CHECK_EXTENSION is asked for.
    package struct Extension: Sendable {
        let number: UInt32
        package static let type1v2 = Extension(number: 3)
        package static let noIOMMU = Extension(number: 8)
        package static let unmapAll = Extension(number: 9)
        /// Addresses of mappings can be taken over. Says no before ``setIOMMU()``, with a mediated device in the container, and when the
        /// container is one that iommufd plays.
        package static let updateAddresses = Extension(number: 10)
    }

    package func supports(_ ability: Extension) -> Bool { cl_vfio_check_extension(file.number, ability.number) > 0 }

    /// VFIO_SET_IOMMU, type 1 version 2. After the first group. `EPERM`: interrupts of its devices cannot be isolated.
    package func setIOMMU() throws(Errno) { try check(cl_vfio_set_iommu(file.number, Extension.type1v2.number)) }

    /// What the container's IOMMU can map.
    package struct Information: Sendable, Equatable {
        /// A bitmap of page sizes.
        package let pageSizes: UInt64
        /// How many mappings may still be made; `nil`: not said.
        package let mappingsLeft: Int?
        /// Usable addresses; empty: not said.
        package let ranges: [ClosedRange<UInt64>]
    }

    /// VFIO_IOMMU_GET_INFO. After ``setIOMMU()``.
    package func information() throws(Errno) -> Information {
        var told = cl_vfio_iommu()
        let ranges = try unsafe collectRanges {
            // SAFETY: the shim fills one structure and at most as many ranges as there is room for.
            unsafe cl_vfio_iommu_info(file.number, &told, $0, $1, $2)
        }
        return Information(
            pageSizes: told.page_sizes, mappingsLeft: told.mappings_left == .max ? nil : Int(told.mappings_left), ranges: ranges)
    }

    /// VFIO_IOMMU_MAP_DMA: `size` bytes of this process at `address`, seen by devices at `iova`. All three multiples of the smallest page.
    ///
    /// Pinned and charged to this process. `EEXIST`: something is mapped there; `ENOMEM`: more than it may lock; `ENOSPC`: too many mappings;
    /// `EINVAL`: outside the usable ranges.
    package func map(address: UInt, iova: UInt64, size: UInt64, access: DMAAccess = .readWrite) throws(Errno) {
        try check(cl_vfio_map(file.number, access.rawValue, UInt64(address), iova, size))
    }

    /// VFIO_IOMMU_UNMAP_DMA of whole mappings. How many bytes that were.
    @discardableResult
    package func unmap(iova: UInt64, size: UInt64) throws(Errno) -> UInt64 { try unmap(flags: 0, iova, size) }

    /// VFIO_IOMMU_UNMAP_DMA of everything. How many bytes that were.
    @discardableResult
    package func unmapAll() throws(Errno) -> UInt64 { try unmap(flags: CL_VFIO_UNMAP_ALL, 0, 0) }

    /// Declares the addresses of all mappings void, for a new process to bring its own. Devices go on.
    /// `EINVAL`, and nothing changed: those of some mapping are void already. `EBUSY`: there is a mediated device.
    @discardableResult
    package func voidAddresses() throws(Errno) -> UInt64 { try unmap(flags: CL_VFIO_UNMAP_VADDR | CL_VFIO_UNMAP_ALL, 0, 0) }

    /// The same for one mapping. `EINVAL`: its address was void already, or it is no whole mapping.
    @discardableResult
    package func voidAddress(iova: UInt64, size: UInt64) throws(Errno) -> UInt64 { try unmap(flags: CL_VFIO_UNMAP_VADDR, iova, size) }

    /// Brings the address at which this process sees what is mapped at `iova`; from now on it is charged for it. The kernel believes it.
    ///
    /// `EINVAL`: the mapping's address is not void, or the mapping is another one; `ENOENT`: there is none; `ENOMEM`: more than this process may
    /// lock, and the address stays void.
    package func bringAddress(_ address: UInt, iova: UInt64, size: UInt64) throws(Errno) {
        try check(cl_vfio_map(file.number, CL_VFIO_DMA_VADDR, UInt64(address), iova, size))
    }

    private func unmap(flags: UInt32, _ iova: UInt64, _ size: UInt64) throws(Errno) -> UInt64 {
        var unmapped: UInt64 = 0
        // SAFETY: the shim stores one integer.
        try check(unsafe cl_vfio_unmap(file.number, flags, iova, size, &unmapped))
        return unmapped
    }
}

/// What `fill`, a shim, stores: up to 64 ranges, their number, and 0 or `-errno` as its result. Ranges that end before they begin are left out.
func collectRanges(
    _ fill: (UnsafeMutablePointer<cl_range>?, _ room: CUnsignedInt, UnsafeMutablePointer<CUnsignedInt>) -> CInt
) throws(Errno) -> [ClosedRange<UInt64>] {
    var found = [cl_range](repeating: cl_range(), count: 64)
    var count: CUnsignedInt = 0
    // SAFETY: the callee writes at most as many ranges as there is room for.
    try check(unsafe found.withUnsafeMutableBufferPointer { unsafe fill($0.baseAddress, CUnsignedInt($0.count), &count) })
    return found.prefix(Int(count)).compactMap { $0.first <= $0.last ? $0.first...$0.last : nil }
}
