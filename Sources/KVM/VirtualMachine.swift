internal import CLinux
package import LinuxSystem
package import SystemPackage

/// Guest-physical memory backed by a mapping of this process.
package struct MemorySlot: Sendable, Equatable {
    package let number: UInt32
    package let guestAddress: UInt64
    package let size: UInt64
    /// Where the mapping lies in this process.
    package let address: UInt
    package let isReadOnly: Bool

    package init(number: UInt32, guestAddress: UInt64, size: UInt64, address: UInt, isReadOnly: Bool = false) {
        self.number = number
        self.guestAddress = guestAddress
        self.size = size
        self.address = address
        self.isReadOnly = isReadOnly
    }
}

/// A VM of this process's address space (KVM_CREATE_VM). Calls are typed; order and policy are the caller's.
package final class VirtualMachine: Sendable {
    let descriptor: OwnedDescriptor
    private let vcpuMapSize: Int

    init(_ descriptor: consuming OwnedDescriptor, vcpuMapSize: Int) {
        self.descriptor = descriptor
        self.vcpuMapSize = vcpuMapSize
    }

    /// What KVM_CHECK_EXTENSION says for this VM; 0 when the capability is absent.
    package func value(of capability: Capability) -> Int {
        Int(max(0, cl_kvm_call(descriptor.number, CL_KVM_CHECK_EXTENSION, UInt(capability.number))))
    }

    /// KVM_ENABLE_CAP with its first argument.
    package func enable(_ capability: Capability, _ argument: UInt64 = 0) throws(Errno) {
        let buffer = KernelBuffer(count: 104)
        buffer.store(capability.number, at: 0)
        buffer.store(argument, at: 8)
        // SAFETY: `struct kvm_enable_cap` is 104 bytes.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_ENABLE_CAP, buffer.pointer))
    }

    /// Three pages that Intel processors need for the task state segment, and one for an identity map. Before the first vCPU.
    package func setScratchPages(taskState: UInt64, identityMap: UInt64) throws(Errno) {
        try check(cl_kvm_call(descriptor.number, CL_KVM_SET_TSS_ADDR, UInt(taskState)))
        let buffer = KernelBuffer(count: 8)
        buffer.store(identityMap, at: 0)
        // SAFETY: the argument is eight bytes.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_IDENTITY_MAP_ADDR, buffer.pointer))
    }

    /// PIC, IOAPIC and one LAPIC per vCPU, in the kernel. Before the first vCPU.
    package func createInterruptControllers() throws(Errno) {
        try check(cl_kvm_call(descriptor.number, CL_KVM_CREATE_IRQCHIP, 0))
    }

    /// KVM_SET_USER_MEMORY_REGION. The mapping must outlive the slot. `EEXIST`: it overlaps with another one.
    package func setMemorySlot(_ slot: MemorySlot) throws(Errno) {
        var region = kvm_userspace_memory_region()
        region.slot = slot.number
        region.flags = slot.isReadOnly ? 2 : 0
        region.guest_phys_addr = slot.guestAddress
        region.memory_size = slot.size
        region.userspace_addr = UInt64(slot.address)
        // SAFETY: the kernel reads one structure.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_USER_MEMORY_REGION, &region))
    }

    /// Takes a slot away: vCPUs that touch its addresses come out of KVM_RUN from then on.
    package func removeMemorySlot(_ number: UInt32) throws(Errno) {
        try setMemorySlot(MemorySlot(number: number, guestAddress: 0, size: 0, address: 0))
    }

    /// The VM's KVM-VFIO device (KVM_CREATE_DEVICE, `KVM_DEV_TYPE_VFIO`). `EBUSY`: there is one already.
    package func createVFIOAssociation() throws(Errno) -> VFIOAssociation {
        VFIOAssociation(try OwnedDescriptor(checking: cl_kvm_create_vfio(descriptor.number)))
    }

    /// A vCPU whose APIC id is `index`.
    package func createVCPU(_ index: Int) throws(Errno) -> VCPU {
        let created = try OwnedDescriptor(checking: cl_kvm_call(descriptor.number, CL_KVM_CREATE_VCPU, UInt(index)))
        return try VCPU(created, index: index, mapSize: vcpuMapSize)
    }
}

/// What KVM knows of the VFIO devices of a VM: whether their DMA is coherent (Linux, Documentation/virt/kvm/devices/vfio.rst).
package final class VFIOAssociation: Sendable {
    private let descriptor: OwnedDescriptor

    init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    /// Adds a device, or the group of one (KVM_DEV_VFIO_FILE_ADD). It is referred to as long as this lives. `EEXIST`: added already.
    package func add(_ file: borrowing OwnedDescriptor) throws(Errno) { try check(cl_kvm_vfio_add(descriptor.number, file.number)) }
}
