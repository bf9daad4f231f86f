package import SystemPackage

/// How the first vCPU begins at power-on.
package enum StartState: Sendable, Equatable {
    /// 32-bit protected mode without paging, flat segments (PVH): EBX points at `hvm_start_info`.
    case protectedMode(entry: UInt32, startInfo: UInt32)
    /// 64-bit mode on identity-mapped page tables (Linux boot protocol, 64-bit): RSI points at `boot_params`.
    case longMode(entry: UInt64, bootParameters: UInt64, pageTables: UInt64, descriptorTable: UInt64, stack: UInt64)
}

extension VCPU {
    /// Gives a vCPU that has never run its first registers.
    package func set(_ start: StartState) throws(Errno) {
        let system = KernelBuffer(count: 312)
        _ = try read(.systemRegisters, into: system)
        let registers = KernelBuffer(count: 144)
        registers.store(UInt64(2), at: Register.rflags)
        switch start {
        case .protectedMode(let entry, let startInfo):
            registers.store(UInt64(entry), at: Register.rip)
            registers.store(UInt64(startInfo), at: Register.rbx)
            setSegments(system, codeSelector: 0x08, dataSelector: 0x10, isLong: false)
            system.store(UInt64(1), at: Register.cr0)  // PE
        case .longMode(let entry, let bootParameters, let pageTables, let descriptorTable, let stack):
            registers.store(entry, at: Register.rip)
            registers.store(bootParameters, at: Register.rsi)
            registers.store(stack, at: Register.rsp)
            setSegments(system, codeSelector: 0x10, dataSelector: 0x18, isLong: true)
            system.store(descriptorTable, at: Register.gdt)
            system.store(UInt16(0x1F), at: Register.gdt + 8)
            system.store(UInt64(0x8000_0001), at: Register.cr0)  // PG, PE
            system.store(pageTables, at: Register.cr3)
            system.store(UInt64(0x20), at: Register.cr4)  // PAE
            system.store(UInt64(0x500), at: Register.efer)  // LMA, LME
        }
        try write(.systemRegisters, from: system)
        try write(.registers, from: registers)
    }

    /// Offsets in `struct kvm_regs` and `struct kvm_sregs`.
    private enum Register {
        static let rbx = 8, rsi = 32, rsp = 48, rip = 128, rflags = 136
        static let taskSegment = 144, gdt = 192, cr0 = 224, cr3 = 240, cr4 = 248, efer = 264
    }

    private func setSegments(_ system: KernelBuffer, codeSelector: UInt16, dataSelector: UInt16, isLong: Bool) {
        setSegment(system, 0, selector: codeSelector, type: 0xB, isLong: isLong, is32: !isLong)
        for number in 1...5 { setSegment(system, 24 * number, selector: dataSelector, type: 0x3, isLong: false, is32: true) }
        setSegment(system, Register.taskSegment, selector: 0, type: 0xB, isLong: false, is32: false, isSystem: true)
    }

    /// `struct kvm_segment`, flat.
    private func setSegment(_ system: KernelBuffer, _ at: Int, selector: UInt16, type: UInt8, isLong: Bool, is32: Bool, isSystem: Bool = false) {
        system.store(UInt64(0), at: at)
        system.store(isSystem ? UInt32(0x67) : .max, at: at + 8)
        system.store(selector, at: at + 12)
        system.store(type, at: at + 14)
        system.store(UInt8(1), at: at + 15)  // present
        system.store(UInt8(0), at: at + 16)  // privilege level
        system.store(UInt8(is32 ? 1 : 0), at: at + 17)
        system.store(UInt8(isSystem ? 0 : 1), at: at + 18)
        system.store(UInt8(isLong ? 1 : 0), at: at + 19)
        system.store(UInt8(isSystem ? 0 : 1), at: at + 20)  // granularity
        system.store(UInt8(0), at: at + 22)  // usable
    }
}
