internal import CLinux

/// An access to I/O ports: `count` elements of `size` bytes, read or written through the ``VCPU`` that exited.
package struct PortAccess: Sendable, Equatable {
    package let port: UInt16
    package let size: Int
    package let count: Int
    package let isWrite: Bool
    let dataOffset: Int
}

/// An access to guest-physical memory that no slot backs.
package struct MemoryAccess: Sendable, Equatable {
    package let address: UInt64
    package let size: Int
    package let isWrite: Bool
    /// What was written; 0 for a read.
    package let data: UInt64
}

/// Why KVM_RUN returned.
package enum VCPUExit: Sendable, Equatable {
    case io(PortAccess)
    case mmio(MemoryAccess)
    case hlt
    /// Triple fault.
    case shutdown
    case failEntry(reason: UInt64)
    /// KVM gave up on an instruction or on its own state.
    case internalError(suberror: UInt32, detail: UInt64)
    /// KVM_SYSTEM_EVENT_*: 1 shutdown, 2 reset, 3 crash.
    case systemEvent(type: UInt32)
    case interruptWindow
    case debug
    /// A signal came, or an exit was asked for.
    case interrupted
    /// Any other KVM_EXIT_*.
    case other(reason: UInt32)

    init(_ flat: cl_kvm_exit_detail) {
        switch Int32(flat.reason) {
        case KVM_EXIT_IO:
            self = .io(
                PortAccess(
                    port: UInt16(truncatingIfNeeded: flat.address), size: Int(flat.size), count: Int(flat.count), isWrite: flat.is_write != 0,
                    dataOffset: Int(flat.offset)))
        case KVM_EXIT_MMIO:
            let isWrite = flat.is_write != 0
            self = .mmio(MemoryAccess(address: flat.address, size: Int(flat.size), isWrite: isWrite, data: isWrite ? flat.data : 0))
        case KVM_EXIT_HLT: self = .hlt
        case KVM_EXIT_SHUTDOWN: self = .shutdown
        case KVM_EXIT_FAIL_ENTRY: self = .failEntry(reason: flat.address)
        case KVM_EXIT_INTERNAL_ERROR: self = .internalError(suberror: UInt32(truncatingIfNeeded: flat.address), detail: flat.data)
        case KVM_EXIT_SYSTEM_EVENT: self = .systemEvent(type: UInt32(truncatingIfNeeded: flat.address))
        case KVM_EXIT_IRQ_WINDOW_OPEN: self = .interruptWindow
        case KVM_EXIT_DEBUG: self = .debug
        case KVM_EXIT_INTR: self = .interrupted
        default: self = .other(reason: flat.reason)
        }
    }
}
