internal import CLinux
package import LinuxSystem
package import SystemPackage

/// A kind of interrupt of a PCI device (`VFIO_PCI_*_IRQ_INDEX`). Of INTx, MSI and MSI-X one at a time is armed.
package enum VFIOInterruptIndex: UInt32, Sendable, CaseIterable {
    case intx = 0
    case msi = 1
    case msix = 2
    /// An error that PCI Express reports.
    case error = 3
    /// The host wants the device back.
    case request = 4
}

/// What VFIO_DEVICE_GET_IRQ_INFO says. A count of 0: there is none.
package struct VFIOInterruptInformation: Sendable, Equatable {
    package let count: Int
    package let isMaskable: Bool
    /// Masked by the kernel whenever it fires, until it is unmasked: level-triggered ones.
    package let isAutomasked: Bool
    /// Vectors cannot be added while some are armed.
    package let isFixedInSize: Bool
}

extension VFIODevice {
    /// What there is of a kind. A kind the device does not know has none.
    package func interrupts(_ index: VFIOInterruptIndex) throws(Errno) -> VFIOInterruptInformation {
        var (flags, count): (UInt32, UInt32) = (0, 0)
        // SAFETY: the shim stores two integers.
        let result = unsafe cl_vfio_interrupt_info(file.number, index.rawValue, &flags, &count)
        if result != -Errno.invalidArgument.rawValue { try check(result) }
        return VFIOInterruptInformation(
            count: Int(count), isMaskable: flags & 2 != 0, isAutomasked: flags & 4 != 0, isFixedInSize: flags & 8 != 0)
    }

    /// Signals `events[i]`, an eventfd, for vector `start + i`; `nil` disarms the vector. Arms the kind if it was not.
    ///
    /// The kernel keeps the eventfds: another process that is given the same ones has nothing to arm. `EINVAL`: another kind is armed; `EIO`: fewer
    /// vectors than asked for can be had. On failure all of these vectors are disarmed.
    package func arm(_ index: VFIOInterruptIndex, from start: Int = 0, _ events: [SharedDescriptor?]) throws(Errno) {
        let numbers = events.map { $0?.number ?? -1 }
        try set(index, CL_VFIO_TRIGGER | CL_VFIO_DATA_EVENTFD, start, numbers.count, numbers)
    }

    /// Disarms all of a kind. Nothing happens if none is armed; `EINVAL` if the device has none.
    package func disarm(_ index: VFIOInterruptIndex) throws(Errno) { try set(index, CL_VFIO_TRIGGER | CL_VFIO_DATA_NONE, 0, 0) }

    /// Acts as if the device had raised vector `number`, which is armed.
    package func trigger(_ index: VFIOInterruptIndex, _ number: Int = 0) throws(Errno) {
        try set(index, CL_VFIO_TRIGGER | CL_VFIO_DATA_NONE, number, 1)
    }

    /// Masks INTx.
    package func maskINTx() throws(Errno) { try set(.intx, CL_VFIO_MASK | CL_VFIO_DATA_NONE, 0, 1) }

    /// Unmasks INTx, which the kernel masks whenever it fires.
    package func unmaskINTx() throws(Errno) { try set(.intx, CL_VFIO_UNMASK | CL_VFIO_DATA_NONE, 0, 1) }

    /// Unmasks INTx whenever `event` is signalled, as by KVM's resampling; `nil`: no longer. `EBUSY`: an eventfd does so already.
    package func unmaskINTx(by event: SharedDescriptor?) throws(Errno) {
        try set(.intx, CL_VFIO_UNMASK | CL_VFIO_DATA_EVENTFD, 0, 1, [event?.number ?? -1])
    }

    private func set(_ index: VFIOInterruptIndex, _ flags: UInt32, _ start: Int, _ count: Int, _ events: [CInt] = []) throws(Errno) {
        guard let start = UInt32(exactly: start), let count = UInt32(exactly: count), count <= CL_VFIO_VECTORS else { throw Errno.invalidArgument }
        // SAFETY: the shim reads `count` integers, and only if there are eventfds, which then are as many.
        try check(
            unsafe events.withUnsafeBufferPointer { unsafe cl_vfio_set_interrupts(file.number, flags, index.rawValue, start, count, $0.baseAddress) })
    }
}
