internal import CLinux
package import LinuxSystem
package import SystemPackage

/// `/dev/vfio/NUMBER`: devices that the IOMMU cannot tell apart (drivers/vfio/group.c). One process of the host has it open.
///
/// The group is released, and its devices are reset, when the last descriptor of it and of its devices is closed.
package struct VFIOGroup: Sendable {
    package let file: SharedDescriptor

    /// Takes a descriptor as it is.
    package init(adopting file: SharedDescriptor) { self.file = file }

    /// Opens group `number`. `EBUSY`: somebody has it, or one of its devices, open. `ENOENT`: no device of it has a driver for this.
    package static func open(_ number: Int) throws(Errno) -> VFIOGroup {
        VFIOGroup(adopting: SharedDescriptor(try OwnedDescriptor.open("/dev/vfio/\(number)", .readWrite)))
    }

    package struct Status: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        /// No device of the group has a driver of the host.
        package static let viable = Status(rawValue: 1)
        package static let inContainer = Status(rawValue: 2)
    }

    package func status() throws(Errno) -> Status {
        var flags: UInt32 = 0
        // SAFETY: the shim stores one integer.
        try check(unsafe cl_vfio_group_status(file.number, &flags))
        return Status(rawValue: flags)
    }

    /// VFIO_GROUP_SET_CONTAINER. `EINVAL`: it is in one. `EPERM`: somebody else owns its DMA. `EBUSY`: a driver uses it.
    package func join(_ container: VFIOContainer) throws(Errno) {
        try check(cl_vfio_group_set_container(file.number, container.file.number))
    }

    /// VFIO_GROUP_UNSET_CONTAINER. `EBUSY` while one of its devices is open.
    package func leaveContainer() throws(Errno) { try check(cl_vfio_group_unset_container(file.number)) }

    /// VFIO_GROUP_GET_DEVICE_FD: the device at a PCI address such as `0000:06:0d.0`, or a mediated device by its UUID.
    ///
    /// The first open resets it. After ``VFIOContainer/setIOMMU()``; `EINVAL` before. `ENODEV`: no such device in the group.
    package func device(_ name: String) throws(Errno) -> VFIODevice {
        // SAFETY: the name is NUL-terminated for the duration of the call.
        let result = unsafe name.withCString { unsafe cl_vfio_group_device(file.number, $0) }
        return VFIODevice(adopting: SharedDescriptor(try OwnedDescriptor(checking: result)))
    }
}
