internal import CLinux
package import LinuxSystem
package import SystemPackage

/// A capability number of KVM_CHECK_EXTENSION, with the kernel's names.
package struct Capability: Sendable, Equatable {
    package let number: UInt32
    package init(_ number: UInt32) { self.number = number }

    package static let irqchip = Capability(0)
    package static let userMemory = Capability(3)
    package static let numberOfVCPUs = Capability(9)
    package static let numberOfMemorySlots = Capability(10)
    package static let irqfd = Capability(32)
    package static let ioeventfd = Capability(36)
    package static let adjustClock = Capability(39)
    package static let xsave = Capability(55)
    package static let xcrs = Capability(56)
    package static let tscControl = Capability(60)
    package static let getTSCKHz = Capability(61)
    package static let maximumVCPUs = Capability(66)
    package static let tscDeadlineTimer = Capability(72)
    package static let kvmclockControl = Capability(76)
    package static let systemManagementMode = Capability(117)
    package static let vcpuAttributes = Capability(127)
    package static let immediateExit = Capability(136)
    package static let getMSRFeatures = Capability(153)
    package static let nestedState = Capability(157)
    package static let exceptionPayload = Capability(164)
    package static let sregs2 = Capability(200)
    package static let xsave2 = Capability(208)
    package static let tripleFaultEvent = Capability(218)
    package static let maskedPMUEvents = Capability(226)
    package static let preFaultMemory = Capability(236)
}

/// `/dev/kvm`, opened by somebody else: what KVM offers, and the place where VMs are made.
package struct KVMSystem: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    /// Takes over a descriptor of `/dev/kvm`. `EINVAL` when it does not speak API version 12, the only one there is.
    package init(_ descriptor: consuming OwnedDescriptor) throws(Errno) {
        self.descriptor = descriptor
        let version = try check(cl_kvm_call(self.descriptor.number, CL_KVM_GET_API_VERSION, 0))
        if version != KVM_API_VERSION { throw Errno.invalidArgument }
    }

    /// What KVM_CHECK_EXTENSION says; 0 when the capability is absent.
    package borrowing func value(of capability: Capability) -> Int {
        Int(max(0, cl_kvm_call(descriptor.number, CL_KVM_CHECK_EXTENSION, UInt(capability.number))))
    }

    /// A VM. It belongs to this process's address space for good: ioctls from another one get `EIO`.
    package borrowing func createVirtualMachine() throws(Errno) -> VirtualMachine {
        let created = try OwnedDescriptor(checking: cl_kvm_call(descriptor.number, CL_KVM_CREATE_VM, 0))
        let mapSize = try check(cl_kvm_call(descriptor.number, CL_KVM_GET_VCPU_MMAP_SIZE, 0))
        return VirtualMachine(created, vcpuMapSize: Int(mapSize))
    }

    /// The MSRs that KVM_GET_MSRS reads and KVM_SET_MSRS writes for a vCPU (KVM_GET_MSR_INDEX_LIST).
    package borrowing func msrIndices() throws(Errno) -> [UInt32] {
        try indexList(CL_KVM_GET_MSR_INDEX_LIST)
    }

    /// The MSRs that describe features (KVM_GET_MSR_FEATURE_INDEX_LIST).
    package borrowing func featureMSRIndices() throws(Errno) -> [UInt32] {
        try indexList(CL_KVM_GET_MSR_FEATURE_INDEX_LIST)
    }

    private borrowing func indexList(_ request: UInt) throws(Errno) -> [UInt32] {
        let room = 1024
        let buffer = KernelBuffer(count: 4 + 4 * room)
        buffer.store(UInt32(room), at: 0)
        // SAFETY: the kernel writes at most the number of entries stored in the header.
        try check(unsafe cl_kvm_call_with(descriptor.number, request, buffer.pointer))
        return (0..<Int(buffer.load32(at: 0))).map { buffer.load32(at: 4 + 4 * $0) }
    }

    /// What this host can show a guest (KVM_GET_SUPPORTED_CPUID).
    package borrowing func supportedCPUID() throws(Errno) -> CPUIDTable {
        let buffer = CPUIDTable.buffer(room: 256)
        // SAFETY: the kernel writes at most the number of entries stored in the header.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_GET_SUPPORTED_CPUID, buffer.pointer))
        return CPUIDTable(buffer)
    }
}
