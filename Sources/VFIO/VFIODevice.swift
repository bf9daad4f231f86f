internal import CLinux
package import LinuxSystem
package import SystemPackage

/// A device that VFIO gives to a process (linux/vfio.h). All of its state, registers, interrupts, configuration, belongs to the open file:
/// whoever is given the descriptor goes on where it stands, and the last one to close it resets the device.
package struct VFIODevice: Sendable {
    package let file: SharedDescriptor

    /// Takes a descriptor as it is.
    package init(adopting file: SharedDescriptor) { self.file = file }

    /// Opens a device by itself, `/dev/vfio/devices/NAME`. Nothing but ``bind(to:)`` works at first. `EBUSY`: its group is open.
    package static func open(named name: String) throws(Errno) -> VFIODevice {
        VFIODevice(adopting: SharedDescriptor(try OwnedDescriptor.open("/dev/vfio/devices/\(name)", .readWrite)))
    }

    /// What VFIO_DEVICE_GET_INFO says.
    package struct Information: Sendable, Equatable {
        package let isPCI: Bool
        package let canReset: Bool
        /// Indices below this may be asked for.
        package let regions: UInt32
        package let interrupts: UInt32
    }

    /// `EINVAL` on a device opened by itself and not bound.
    package func information() throws(Errno) -> Information {
        var told = cl_vfio_device()
        // SAFETY: the shim fills one structure.
        try check(unsafe cl_vfio_device_info(file.number, &told))
        return Information(isPCI: told.flags & 2 != 0, canReset: told.flags & 1 != 0, regions: told.regions, interrupts: told.interrupts)
    }

    /// VFIO_DEVICE_BIND_IOMMUFD: claims it and resets it. Only of a device that was opened by itself, once. The id of the device in `iommufd`.
    ///
    /// `EINVAL`: bound already, or no coherent DMA; `EBUSY`: its group is open; `EPERM`: somebody else owns the group, or its interrupts cannot be
    /// isolated.
    @discardableResult
    package func bind(to iommufd: IOMMUFD) throws(Errno) -> UInt32 {
        var id: UInt32 = 0
        // SAFETY: the shim stores one integer.
        try check(unsafe cl_vfio_bind(file.number, iommufd.file.number, &id))
        return id
    }

    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT to an address space. What is mapped there is pinned now. The id of the page table.
    ///
    /// `EADDRINUSE`: something is mapped where the device has reserved addresses; `EINVAL`: the device and the address space do not fit.
    @discardableResult
    package func attach(to addressSpace: UInt32) throws(Errno) -> UInt32 {
        var table = addressSpace
        // SAFETY: the shim reads and stores one integer.
        try check(unsafe cl_vfio_attach(file.number, &table))
        return table
    }

    /// VFIO_DEVICE_DETACH_IOMMUFD_PT.
    package func detach() throws(Errno) { try check(cl_vfio_detach(file.number)) }

    /// VFIO_DEVICE_RESET. `EINVAL`: it cannot.
    package func reset() throws(Errno) { try check(cl_vfio_reset(file.number)) }
}
