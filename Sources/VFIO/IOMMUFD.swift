internal import CLinux
package import LinuxSystem
package import SystemPackage

/// `/dev/iommu`: I/O address spaces (drivers/iommu/iommufd, Documentation/userspace-api/iommufd.rst). One for each machine, since a process takes
/// over all of one or nothing.
///
/// Its objects belong to the open file: whoever is given the descriptor goes on where it stands.
package struct IOMMUFD: Sendable {
    package let file: SharedDescriptor

    /// Where they come from.
    package static let path = "/dev/iommu"

    /// Takes a descriptor as it is, with what is in it.
    package init(adopting file: SharedDescriptor) { self.file = file }

    /// An empty one.
    package static func open() throws(Errno) -> IOMMUFD {
        IOMMUFD(adopting: SharedDescriptor(try OwnedDescriptor.open(path, .readWrite)))
    }

    /// IOMMU_IOAS_ALLOC: an empty address space. Its id.
    package func allocateAddressSpace() throws(Errno) -> UInt32 {
        var id: UInt32 = 0
        // SAFETY: the shim stores one integer.
        try check(unsafe cl_iommu_ioas_alloc(file.number, &id))
        return id
    }

    /// IOMMU_DESTROY of an object. `EBUSY`: it is in use.
    package func destroy(_ id: UInt32) throws(Errno) { try check(cl_iommu_destroy(file.number, id)) }

    /// What an address space can map.
    package struct Usable: Sendable, Equatable {
        package let ranges: [ClosedRange<UInt64>]
        /// What addresses and lengths are multiples of.
        package let alignment: UInt64
    }

    /// IOMMU_IOAS_IOVA_RANGES. Less with every device that is attached.
    package func usable(in addressSpace: UInt32) throws(Errno) -> Usable {
        var alignment: UInt64 = 0
        let ranges = try unsafe collectRanges {
            // SAFETY: the shim fills an integer and at most as many ranges as there is room for.
            unsafe cl_iommu_ioas_ranges(file.number, addressSpace, $0, $1, $2, &alignment)
        }
        return Usable(ranges: ranges, alignment: alignment)
    }

    /// IOMMU_IOAS_MAP_FILE: `length` bytes of a memfd from `start`, seen by devices at `iova`. No mapping of the process is needed.
    ///
    /// Pinned, and checked against the file's size, once a device is attached; charged to this process. `EEXIST`: something is mapped there;
    /// `ENOMEM`: more than it may lock; `EINVAL`: misaligned, outside the usable ranges, or not of the file; `ENOTTY`: before Linux 6.13.
    package func map(
        _ memory: borrowing OwnedDescriptor, start: UInt64, length: UInt64, at iova: UInt64, in addressSpace: UInt32, access: DMAAccess = .readWrite
    ) throws(Errno) {
        let flags = (access.contains(.read) ? CL_IOMMU_MAP_READABLE : 0) | (access.contains(.write) ? CL_IOMMU_MAP_WRITEABLE : 0)
        try check(cl_iommu_map_file(file.number, addressSpace, flags, memory.number, start, length, iova))
    }

    /// IOMMU_IOAS_UNMAP of whole mappings. How many bytes that were. `ENOENT`: there are none, or only parts of some.
    @discardableResult
    package func unmap(iova: UInt64, length: UInt64, in addressSpace: UInt32) throws(Errno) -> UInt64 {
        var unmapped: UInt64 = 0
        // SAFETY: the shim stores one integer.
        try check(unsafe cl_iommu_unmap(file.number, addressSpace, iova, length, &unmapped))
        return unmapped
    }

    /// IOMMU_IOAS_CHANGE_PROCESS: from now on this process is charged for all that is mapped, in every address space. Devices go on.
    ///
    /// Nothing happens if it is already. `EINVAL`: something was mapped by address, not by file; `ENOMEM`: more than this process, or its user, may lock;
    /// `EBUSY`: something is being mapped; `ENOTTY`: before Linux 6.13. In each case nothing has changed. Call while the process that was charged
    /// before exists.
    package func changeProcess() throws(Errno) { try check(cl_iommu_change_process(file.number)) }

    /// Whether the kernel can do ``changeProcess()``. Asks on an iommufd that has no mappings of others.
    package var canChangeProcess: Bool { cl_iommu_change_process(file.number) == 0 }
}
