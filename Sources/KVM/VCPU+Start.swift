package import SystemPackage

/// A segment register, hidden part included (`struct kvm_segment`).
package struct Segment: Sendable, Equatable {
    package var selector: UInt16
    package var base: UInt64
    package var limit: UInt32
    package var type: UInt8
    /// A code or data segment, not a system one.
    package var isCodeOrData: Bool
    package var isLong: Bool
    package var isBig: Bool
    package var hasPageGranularity: Bool

    package init(
        selector: UInt16, base: UInt64, limit: UInt32, type: UInt8, isCodeOrData: Bool, isLong: Bool, isBig: Bool, hasPageGranularity: Bool
    ) {
        self.selector = selector
        self.base = base
        self.limit = limit
        self.type = type
        self.isCodeOrData = isCodeOrData
        self.isLong = isLong
        self.isBig = isBig
        self.hasPageGranularity = hasPageGranularity
    }
}

/// The registers a vCPU starts with. General registers not named are 0.
package struct StartRegisters: Sendable, Equatable {
    package var rip: UInt64 = 0
    package var rflags: UInt64 = 2
    package var rbx: UInt64 = 0
    package var rsi: UInt64 = 0
    package var cr0: UInt64 = 0
    package var cr3: UInt64 = 0
    package var cr4: UInt64 = 0
    package var efer: UInt64 = 0
    package var gdtBase: UInt64 = 0
    package var gdtLimit: UInt16 = 0
    package var code: Segment
    /// DS, ES, SS, FS and GS.
    package var data: Segment
    package var task: Segment

    package init(code: Segment, data: Segment, task: Segment) {
        self.code = code
        self.data = data
        self.task = task
    }
}

extension VCPU {
    /// Gives a vCPU that has never run its first registers. Its local APIC stays as after reset.
    package func set(_ start: StartRegisters) throws(Errno) {
        let system = KernelBuffer(count: 312)
        _ = try read(.systemRegisters, into: system)
        for number in 0...5 { store(number == 0 ? start.code : start.data, in: system, at: 24 * number) }  // CS, DS, ES, FS, GS, SS
        store(start.task, in: system, at: 144)
        system.store(start.gdtBase, at: 192)
        system.store(start.gdtLimit, at: 200)
        system.store(start.cr0, at: 224)
        system.store(start.cr3, at: 240)
        system.store(start.cr4, at: 248)
        system.store(start.efer, at: 264)
        try write(.systemRegisters, from: system)

        let registers = KernelBuffer(count: 144)
        registers.store(start.rbx, at: 8)
        registers.store(start.rsi, at: 32)
        registers.store(start.rip, at: 128)
        registers.store(start.rflags, at: 136)
        try write(.registers, from: registers)
    }

    private func store(_ segment: Segment, in system: KernelBuffer, at offset: Int) {
        system.store(segment.base, at: offset)
        system.store(segment.limit, at: offset + 8)
        system.store(segment.selector, at: offset + 12)
        system.store(segment.type, at: offset + 14)
        system.store(UInt8(1), at: offset + 15)  // present
        system.store(UInt8(0), at: offset + 16)  // privilege level
        for (position, bit) in [segment.isBig, segment.isCodeOrData, segment.isLong, segment.hasPageGranularity].enumerated() {
            system.store(UInt8(bit ? 1 : 0), at: offset + 17 + position)
        }
        system.store(UInt8(0), at: offset + 21)  // available
        system.store(UInt8(0), at: offset + 22)  // usable
    }
}
