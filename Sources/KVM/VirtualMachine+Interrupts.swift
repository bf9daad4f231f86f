internal import CLinux
package import LinuxSystem
package import SystemPackage

/// A chip of the in-kernel interrupt controllers (`KVM_IRQCHIP_*`).
package enum InterruptChip: UInt32, Sendable, CaseIterable {
    case primaryPIC = 0
    case secondaryPIC = 1
    case ioapic = 2
}

/// Where a global system interrupt leads.
package enum InterruptRoute: Sendable, Equatable {
    case chip(gsi: UInt32, InterruptChip, pin: UInt32)
    case messageSignalled(gsi: UInt32, address: UInt64, data: UInt32)
}

extension VirtualMachine {
    /// `struct kvm_irqchip` in bytes.
    package static let interruptChipSize = 520

    /// KVM_GET_IRQCHIP into a buffer of ``interruptChipSize``.
    package func read(_ chip: InterruptChip, into buffer: KernelBuffer) throws(Errno) {
        precondition(buffer.count == Self.interruptChipSize, "struct kvm_irqchip")
        buffer.store(chip.rawValue, at: 0)
        // SAFETY: the buffer is the size of the structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_GET_IRQCHIP, buffer.pointer))
    }

    /// KVM_SET_IRQCHIP. After every vCPU's LAPIC: restoring the IOAPIC injects what it has pending.
    package func write(_ chip: InterruptChip, from buffer: KernelBuffer) throws(Errno) {
        precondition(buffer.count == Self.interruptChipSize, "struct kvm_irqchip")
        buffer.store(chip.rawValue, at: 0)
        // SAFETY: the buffer is the size of the structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_IRQCHIP, buffer.pointer))
    }

    /// KVM_IRQ_LINE: the level of a pin, the same number at PIC (below 16) and IOAPIC.
    package func setInterruptLine(_ gsi: UInt32, high: Bool) throws(Errno) {
        var level = kvm_irq_level()
        level.irq = gsi
        level.level = high ? 1 : 0
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_IRQ_LINE, &level))
    }

    /// KVM_SIGNAL_MSI.
    package func signal(address: UInt64, data: UInt32) throws(Errno) {
        var message = kvm_msi()
        message.address_lo = UInt32(truncatingIfNeeded: address)
        message.address_hi = UInt32(truncatingIfNeeded: address >> 32)
        message.data = data
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SIGNAL_MSI, &message))
    }

    /// KVM_SET_GSI_ROUTING: the whole table.
    package func setRoutes(_ routes: [InterruptRoute]) throws(Errno) {
        let buffer = KernelBuffer(count: 8 + 48 * max(1, routes.count))
        buffer.store(UInt32(routes.count), at: 0)
        for (position, route) in routes.enumerated() {
            let at = 8 + 48 * position
            switch route {
            case .chip(let gsi, let chip, let pin):
                buffer.store(gsi, at: at)
                buffer.store(UInt32(1), at: at + 4)  // KVM_IRQ_ROUTING_IRQCHIP
                buffer.store(chip.rawValue, at: at + 16)
                buffer.store(pin, at: at + 20)
            case .messageSignalled(let gsi, let address, let data):
                buffer.store(gsi, at: at)
                buffer.store(UInt32(2), at: at + 4)  // KVM_IRQ_ROUTING_MSI
                buffer.store(UInt32(truncatingIfNeeded: address), at: at + 16)
                buffer.store(UInt32(truncatingIfNeeded: address >> 32), at: at + 20)
                buffer.store(data, at: at + 24)
            }
        }
        // SAFETY: the header counts the entries that follow.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_GSI_ROUTING, buffer.pointer))
    }

    /// KVM_IRQFD: injects `gsi` whenever the eventfd counts. What it already counts is injected at once, so attach only in the VM
    /// that is going to run.
    package func attach(_ event: borrowing EventDescriptor, to gsi: UInt32) throws(Errno) {
        try irqfd(event.descriptor.number, gsi, flags: 0)
    }

    /// KVM_IRQFD DEASSIGN: waits for an injection in flight; afterwards the eventfd accumulates.
    package func detach(_ event: borrowing EventDescriptor, from gsi: UInt32) throws(Errno) {
        try irqfd(event.descriptor.number, gsi, flags: 1)
    }

    /// The same of an eventfd whose owner is elsewhere.
    package func attach(_ event: borrowing OwnedDescriptor, to gsi: UInt32) throws(Errno) {
        try irqfd(event.number, gsi, flags: 0)
    }

    /// An eventfd that raises a level-triggered pin, and one that is signalled whenever the guest has ended that interrupt
    /// (KVM_IRQFD_FLAG_RESAMPLE): the pin is low then. `EINVAL` without interrupt controllers in the kernel.
    package func attach(_ event: borrowing OwnedDescriptor, to gsi: UInt32, resampling: borrowing OwnedDescriptor) throws(Errno) {
        try irqfd(event.number, gsi, flags: 2, resampling: resampling.number)
    }

    /// KVM_IRQFD DEASSIGN of either kind. A pin that was raised by it becomes low.
    package func detach(_ event: borrowing OwnedDescriptor, from gsi: UInt32) throws(Errno) {
        try irqfd(event.number, gsi, flags: 1)
    }

    private func irqfd(_ number: CInt, _ gsi: UInt32, flags: UInt32, resampling: CInt = 0) throws(Errno) {
        var request = kvm_irqfd()
        request.fd = UInt32(bitPattern: number)
        request.gsi = gsi
        request.flags = flags
        request.resamplefd = UInt32(bitPattern: resampling)
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_IRQFD, &request))
    }

    /// KVM_IOEVENTFD: a guest write of `length` bytes (0: any) at an address or port signals the eventfd instead of leaving the kernel.
    package func notify(
        _ event: borrowing EventDescriptor, onWriteTo address: UInt64, length: UInt32, isPort: Bool = false, matching data: UInt64? = nil,
        remove: Bool = false
    ) throws(Errno) {
        var request = kvm_ioeventfd()
        request.addr = address
        request.len = length
        request.fd = event.descriptor.number
        request.datamatch = data ?? 0
        request.flags = (data == nil ? 0 : 1) | (isPort ? 2 : 0) | (remove ? 4 : 0)
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_IOEVENTFD, &request))
    }
}
