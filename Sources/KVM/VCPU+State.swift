internal import CLinux
internal import LinuxSystem
package import SystemPackage

/// A part of a vCPU's state that one pair of ioctls reads and writes as one kernel structure. The raw values are stored in checkpoints.
package enum VCPUStatePart: UInt16, Sendable, CaseIterable {
    case mpState = 1
    case registers = 2
    case systemRegisters = 3
    case systemRegisters2 = 4
    case extendedState = 5
    case extendedControlRegisters = 6
    case debugRegisters = 7
    case localAPIC = 8
    case nestedState = 9
    case events = 10

    /// Bytes of the kernel structure; `nil` when the kernel says how many (XSAVE, nested state).
    package var fixedSize: Int? {
        switch self {
        case .mpState: 4
        case .registers: 144
        case .systemRegisters: 312
        case .systemRegisters2: 320
        case .extendedControlRegisters: 392
        case .debugRegisters: 128
        case .localAPIC: 1024
        case .events: 64
        case .extendedState, .nestedState: nil
        }
    }

    /// What the kernel's ioctl would be called without GET or SET, for messages.
    package var name: String {
        switch self {
        case .mpState: "MP_STATE"
        case .registers: "REGS"
        case .systemRegisters: "SREGS"
        case .systemRegisters2: "SREGS2"
        case .extendedState: "XSAVE"
        case .extendedControlRegisters: "XCRS"
        case .debugRegisters: "DEBUGREGS"
        case .localAPIC: "LAPIC"
        case .nestedState: "NESTED_STATE"
        case .events: "VCPU_EVENTS"
        }
    }

    /// Bytes of what the kernel has put into a buffer that has room for all of it.
    package func length(in buffer: KernelBuffer) -> Int { self == .nestedState ? Int(buffer.load32(at: 4)) : fixedSize ?? buffer.count }

    var getRequest: UInt {
        switch self {
        case .mpState: CL_KVM_GET_MP_STATE
        case .registers: CL_KVM_GET_REGS
        case .systemRegisters: CL_KVM_GET_SREGS
        case .systemRegisters2: CL_KVM_GET_SREGS2
        case .extendedState: CL_KVM_GET_XSAVE
        case .extendedControlRegisters: CL_KVM_GET_XCRS
        case .debugRegisters: CL_KVM_GET_DEBUGREGS
        case .localAPIC: CL_KVM_GET_LAPIC
        case .nestedState: CL_KVM_GET_NESTED_STATE
        case .events: CL_KVM_GET_VCPU_EVENTS
        }
    }

    var setRequest: UInt {
        switch self {
        case .mpState: CL_KVM_SET_MP_STATE
        case .registers: CL_KVM_SET_REGS
        case .systemRegisters: CL_KVM_SET_SREGS
        case .systemRegisters2: CL_KVM_SET_SREGS2
        case .extendedState: CL_KVM_SET_XSAVE
        case .extendedControlRegisters: CL_KVM_SET_XCRS
        case .debugRegisters: CL_KVM_SET_DEBUGREGS
        case .localAPIC: CL_KVM_SET_LAPIC
        case .nestedState: CL_KVM_SET_NESTED_STATE
        case .events: CL_KVM_SET_VCPU_EVENTS
        }
    }
}

extension VirtualMachine {
    /// Bytes a part needs on this host, 0 when the host has no such part.
    package func size(of part: VCPUStatePart) -> Int {
        switch part {
        case .extendedState: max(4096, value(of: .xsave2))
        case .nestedState: value(of: .nestedState)
        case .systemRegisters2: value(of: .sregs2) > 0 ? 320 : 0
        case .systemRegisters: value(of: .sregs2) > 0 ? 0 : 312
        case .extendedControlRegisters: value(of: .xcrs) > 0 ? 392 : 0
        default: part.fixedSize ?? 0
        }
    }
}

extension VCPU {
    /// Reads a part into a buffer of the size ``VirtualMachine/size(of:)`` gave.
    package func read(_ part: VCPUStatePart, into buffer: KernelBuffer) throws(Errno) {
        let needed = part.fixedSize ?? (part == .extendedState ? 4096 : 128)
        precondition(buffer.count >= needed, "\(part.name) needs \(needed) bytes")
        if part == .nestedState { buffer.store(UInt32(buffer.count), at: 4) }  // the kernel may fill this much
        let request = part == .extendedState && buffer.count > 4096 ? CL_KVM_GET_XSAVE2 : part.getRequest
        // SAFETY: the buffer has the size the kernel asked for, or says its size in its header.
        try check(unsafe cl_kvm_call_with(descriptor.number, request, buffer.pointer))
    }

    /// Writes a part from a buffer of the same size. Which must come before which is the caller's business.
    package func write(_ part: VCPUStatePart, from buffer: KernelBuffer) throws(Errno) {
        let needed = part.fixedSize ?? (part == .extendedState ? 4096 : 128)
        precondition(buffer.count >= needed, "\(part.name) needs \(needed) bytes")
        // SAFETY: the buffer has the size the kernel asked for, or says its size in its header.
        try check(unsafe cl_kvm_call_with(descriptor.number, part.setRequest, buffer.pointer))
    }

    /// KVM_SET_CPUID2: before the first run; afterwards only the same table is accepted.
    package func setCPUID(_ table: CPUIDTable) throws(Errno) {
        let buffer = table.buffer
        // SAFETY: the header counts the entries that follow.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_CPUID2, buffer.pointer))
    }

    /// KVM_GET_CPUID2: as set, with what KVM keeps up to date in it.
    package func cpuid() throws(Errno) -> CPUIDTable {
        let buffer = CPUIDTable.buffer(room: 256)
        // SAFETY: the kernel writes at most the number of entries stored in the header.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_GET_CPUID2, buffer.pointer))
        return CPUIDTable(buffer)
    }

    /// KVM_X86_SETUP_MCE: how many machine-check banks the vCPU has. Before its MSRs are looked at.
    package func setMachineCheckBanks(_ count: Int) throws(Errno) {
        let buffer = KernelBuffer(count: 8)
        buffer.store(UInt64(count) | 1 << 8, at: 0)  // MCG_CTL_P
        // SAFETY: the argument is eight bytes.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_X86_SETUP_MCE, buffer.pointer))
    }

    /// What is added to the host's TSC (KVM_VCPU_TSC_OFFSET). `ENXIO` where the kernel has no such attribute.
    package func tscOffset() throws(Errno) -> UInt64 {
        var value: UInt64 = 0
        // SAFETY: the shim stores one word.
        try check(unsafe cl_kvm_get_attribute(descriptor.number, 0, 0, &value))
        return value
    }

    /// Sets it. The same value on every vCPU keeps their TSCs, and kvmclock, in step.
    package func setTSCOffset(_ offset: UInt64) throws(Errno) {
        try check(cl_kvm_set_attribute(descriptor.number, 0, 0, offset))
    }

    /// The guest's TSC frequency in kHz.
    package func tscKHz() throws(Errno) -> UInt32 {
        UInt32(try check(cl_kvm_call(descriptor.number, CL_KVM_GET_TSC_KHZ, 0)))
    }

    package func setTSCKHz(_ frequency: UInt32) throws(Errno) {
        try check(cl_kvm_call(descriptor.number, CL_KVM_SET_TSC_KHZ, UInt(frequency)))
    }

    /// KVM_KVMCLOCK_CTRL: tells the guest's stall detectors that it was stopped. `EINVAL` without kvmclock.
    package func announcePause() throws(Errno) {
        try check(cl_kvm_call(descriptor.number, CL_KVM_KVMCLOCK_CTRL, 0))
    }
}
