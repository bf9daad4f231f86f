import KVM
import LinuxSystem
import Testing
import Wire

@testable import VMM

/// Two VMs of the same shape, without a guest.
private struct Pair {
    let first: (vm: VirtualMachine, vcpu: VCPU)
    let second: (vm: VirtualMachine, vcpu: VCPU)
    let plan: MSRPlan

    init() throws {
        let system = try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        let made = try (0..<2).map { _ in
            let vm = try system.createVirtualMachine()
            for capability in [Capability.exceptionPayload, .tripleFaultEvent] where vm.value(of: capability) > 0 { try vm.enable(capability, 1) }
            try vm.createInterruptControllers()
            let vcpu = try vm.createVCPU(0)
            let policy = CPUIDPolicy(supported: try system.supportedCPUID(), vcpus: 1, tscKHz: try vcpu.tscKHz())
            try vcpu.setCPUID(policy.table(for: 0))
            try vcpu.setMachineCheckBanks(MSRPlan.machineCheckBanks)
            return (vm, vcpu)
        }
        (first, second) = (made[0], made[1])
        plan = MSRPlan(probing: first.vcpu, listed: try system.msrIndices(), features: try system.featureMSRIndices())
        try plan.apply(to: second.vcpu)
    }
}

@Suite(.enabled(if: Host.hasKVM, "there is no /dev/kvm here"))
struct VCPUStateTests {
    /// Gives a vCPU state that differs from what it has after reset in every part that can be told apart here.
    private func disturb(_ vm: VirtualMachine, _ vcpu: VCPU) throws {
        let registers = KernelBuffer(count: 144)
        for index in 0..<16 { registers.store(UInt64(0x1111_1111) * UInt64(index + 1), at: 8 * index) }
        registers.store(UInt64(0x10_0000), at: 128)
        registers.store(UInt64(0x202), at: 136)
        try vcpu.write(.registers, from: registers)
        let debug = KernelBuffer(count: 128)
        _ = try vcpu.read(.debugRegisters, into: debug)
        debug.store(UInt64(0x1234_5678), at: 0)
        try vcpu.write(.debugRegisters, from: debug)
        let extended = KernelBuffer(count: vm.size(of: .extendedState))
        _ = try vcpu.read(.extendedState, into: extended)
        for index in 0..<16 { extended.store(UInt64(0xABCD) + UInt64(index), at: 160 + 16 * index) }  // XMM registers
        extended.store(extended.load64(at: 512) | 2, at: 512)  // XSTATE_BV: SSE
        try vcpu.write(.extendedState, from: extended)
        for msr: UInt32 in [0x174, 0xC000_0081, 0xC000_0082, 0xC000_0102, 0x277] {
            _ = vcpu.set(msr: msr, to: msr == 0x277 ? 0x0007_0406_0007_0406 : 0x5A5A_0000)
        }
        let apic = KernelBuffer(count: LocalAPIC.size)
        _ = try vcpu.read(.localAPIC, into: apic)
        apic.store(UInt32(0x1FF), at: 0xF0)
        apic.store(UInt32(1 << 6), at: 0x210)  // vector 0x26 waits
        try vcpu.write(.localAPIC, from: apic)
    }

    /// What must be equal: time and the timer's count go on.
    private func comparable(_ state: VCPUState) -> VCPUState {
        var state = state
        state.time = 0
        state.tscOffset = nil
        return state
    }

    @Test func anAccountTellsWhereAVCPUStood() throws {
        let pair = try Pair()
        try disturb(pair.first.vm, pair.first.vcpu)
        let events = KernelBuffer(count: 64)
        _ = try pair.first.vcpu.read(.events, into: events)
        for (offset, value) in [(8, 1), (9, 0x40)] { events.store(UInt8(value), at: offset) }  // an interrupt on its way
        try pair.first.vcpu.write(.events, from: events)
        let code = UInt64(0xFFFF_0000 + 0x10_0000)  // RIP in the segment a vCPU starts in
        let account = VCPUAccount("stopped", of: pair.first.vcpu) { address, count in
            address == code & 0xFFFF_FFFF || address == code ? [UInt8](repeating: 0xCC, count: count) : nil
        }.description
        #expect(account.hasPrefix("baton-vmm: vCPU 0 stopped\n  rip 0x100000 rsp 0x77777777 rflags 0x202\n"))
        #expect(account.contains("cs 0xf000:0xffff0000+0xffff"))
        #expect(account.contains("interrupt injected 0x1, interrupt 0x40"))
        #expect(account.contains("cc cc cc cc"))
        #expect(account.utf8.count < 2048 && account.utf8.allSatisfy { $0 == 10 || (32..<127).contains($0) })
    }

    @Test func savedRestoredAndSavedAgainItIsTheSame() throws {
        let pair = try Pair()
        try disturb(pair.first.vm, pair.first.vcpu)
        let writing = VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan)
        let saved = try writing.save(pair.first.vcpu) {}
        let reading = VCPUStateIO(vm: pair.second.vm, vcpu: pair.second.vcpu, plan: pair.plan)
        try reading.restore(saved, to: pair.second.vcpu)
        let again = try reading.save(pair.second.vcpu) {}
        for part in saved.parts {
            #expect(part.bytes == again[part.part], "\(part.part.name)")
        }
        #expect(saved.msrs == again.msrs)
        #expect(saved.tscKHz == again.tscKHz)
        #expect(comparable(saved) == comparable(again))
        // And what was written is what is there.
        #expect(saved[.registers]?.starts(with: [0x11, 0x11, 0x11, 0x11]) == true)
        #expect(saved.msrs.contains(VCPUState.MSR(index: 0xC000_0082, value: 0x5A5A_0000)))
    }

    @Test func itIsReadAsItWasWrittenAndEveryTruncationIsRefused() throws {
        let pair = try Pair()
        let state = try VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan).save(pair.first.vcpu) {}
        var writer = WireWriter()
        state.encode(to: &writer)
        var reader = WireReader(writer.bytes)
        #expect(try VCPUState(from: &reader) == state)
        for length in stride(from: 0, to: writer.count, by: 7) {
            #expect(throws: WireError.self) {
                var reader = WireReader(Array(writer.bytes.prefix(length)))
                _ = try VCPUState(from: &reader)
                try reader.finish()
            }
        }
    }

    @Test func aLongerStructureIsTakenOnlyIfItsTailIsZero() throws {
        let pair = try Pair()
        let io = VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan)
        let saved = try io.save(pair.first.vcpu) {}
        for (tail, isTaken) in [(UInt8(0), true), (1, false)] {
            var longer = saved
            longer.parts = saved.parts.map { part in
                part.part == .extendedState ? .init(part: part.part, bytes: part.bytes + [UInt8](repeating: 0, count: 63) + [tail]) : part
            }
            let reading = VCPUStateIO(vm: pair.second.vm, vcpu: pair.second.vcpu, plan: pair.plan)
            if isTaken {
                try reading.restore(longer, to: pair.second.vcpu)
            } else {
                #expect(throws: VMMError.self) { try reading.restore(longer, to: pair.second.vcpu) }
            }
        }
    }

    @Test func anMSRThatIsRefusedIsNamed() throws {
        let pair = try Pair()
        let io = VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan)
        var saved = try io.save(pair.first.vcpu) {}
        saved.msrs.append(VCPUState.MSR(index: 0x1234_5678, value: 1))
        #expect { try io.restore(saved, to: pair.first.vcpu) } throws: { "\($0)".contains("0x12345678") }
    }

    @Test func clocksAndTheStartTimeStampAreNotInThePlan() throws {
        let plan = try Pair().plan
        for index: UInt32 in [0x10, 0x11, 0x4B56_4D00] { #expect(!plan.saved.contains(index)) }
        for index: UInt32 in [0x174, 0x200, 0x2FF, 0x400, 0xC000_0080] where index != 0xC000_0080 { #expect(plan.saved.contains(index)) }
        #expect(plan.saved == plan.saved.sorted())
        var writer = WireWriter()
        plan.encode(to: &writer)
        var reader = WireReader(writer.bytes)
        #expect(try MSRPlan(from: &reader) == plan)
    }
}
