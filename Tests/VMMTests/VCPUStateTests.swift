import Checkpoint
import KVM
import LinuxSystem
import RandomTestSupport
import Testing
import Wire

@testable import VMM

/// Two VMs of the same shape, without a guest.
private struct Pair {
    /// RAM of all of them: without any, KVM has no page tables to spare where it shadows the guest's.
    private static let ram = Result {
        try SharedMapping(of: try MemoryDescriptor(name: "ram", size: 64 << 10).descriptor, length: 64 << 10)
    }

    let first: (vm: VirtualMachine, vcpu: VCPU)
    let second: (vm: VirtualMachine, vcpu: VCPU)
    let plan: MSRPlan

    init() throws {
        (first, second) = (try Self.make(), try Self.make())
        let system = try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        plan = MSRPlan(probing: first.vcpu, listed: try system.msrIndices(), features: try system.featureMSRIndices())
        try plan.apply(to: second.vcpu)
    }

    /// One more like the second one.
    func another() throws -> (vm: VirtualMachine, vcpu: VCPU) {
        let made = try Self.make()
        try plan.apply(to: made.vcpu)
        return made
    }

    private static func make() throws -> (vm: VirtualMachine, vcpu: VCPU) {
        let system = try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        let vm = try system.createVirtualMachine()
        for capability in [Capability.exceptionPayload, .tripleFaultEvent] where vm.value(of: capability) > 0 { try vm.enable(capability, 1) }
        try vm.createInterruptControllers()
        try vm.setMemorySlot(MemorySlot(number: 0, guestAddress: 0, size: 64 << 10, address: try ram.get().address))
        let vcpu = try vm.createVCPU(0)
        let policy = CPUIDPolicy(supported: try system.supportedCPUID(), vcpus: 1, tscKHz: try vcpu.tscKHz())
        try vcpu.setCPUID(policy.table(for: 0))
        try vcpu.setMachineCheckBanks(MSRPlan.machineCheckBanks)
        return (vm, vcpu)
    }
}

extension [UInt8] {
    /// Without these.
    fileprivate func masking(_ range: Range<Int>) -> [UInt8] { enumerated().map { range.contains($0) ? 0 : $1 } }
}

extension VCPUStateIO {
    /// As it is read again from what is written.
    fileprivate func save(_ vcpu: VCPU, collect: (() -> Void)?, isFullLength: Bool = false) throws -> VCPUState {
        var draft = SectionDraft(capacity: 0)
        try save(vcpu, collect: collect, isFullLength: isFullLength, to: &draft)
        return try draft.state()
    }
}

extension SectionDraft {
    fileprivate func state() throws -> VCPUState {
        var reader = WireReader(content.bytes)
        let state = try VCPUState(from: &reader)
        try reader.finish()
        return state
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
        try vcpu.read(.debugRegisters, into: debug)
        debug.store(UInt64(0x1234_5678), at: 0)
        try vcpu.write(.debugRegisters, from: debug)
        let extended = KernelBuffer(count: vm.size(of: .extendedState))
        try vcpu.read(.extendedState, into: extended)
        for index in 0..<16 { extended.store(UInt64(0xABCD) + UInt64(index), at: 160 + 16 * index) }  // XMM registers
        extended.store(extended.load64(at: 512) | 2, at: 512)  // XSTATE_BV: SSE
        try vcpu.write(.extendedState, from: extended)
        for msr: UInt32 in [0x174, 0xC000_0081, 0xC000_0082, 0xC000_0102, 0x277] {
            _ = vcpu.set(msr: msr, to: msr == 0x277 ? 0x0007_0406_0007_0406 : 0x5A5A_0000)
        }
        let apic = KernelBuffer(count: LocalAPIC.size)
        try vcpu.read(.localAPIC, into: apic)
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
        try pair.first.vcpu.read(.events, into: events)
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
        let saved = try writing.save(pair.first.vcpu, collect: {})
        let reading = VCPUStateIO(vm: pair.second.vm, vcpu: pair.second.vcpu, plan: pair.plan)
        try reading.restore(saved, to: pair.second.vcpu)
        let again = try reading.save(pair.second.vcpu, collect: {})
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

    // What practice has given a vCPU is not given again.

    /// Changes some parts of a vCPU's state, by a generator.
    private func change(_ vm: VirtualMachine, _ vcpu: VCPU, by random: inout SplitMix) throws {
        func edit(_ part: VCPUStatePart, _ body: (KernelBuffer) -> Void) throws {
            let buffer = KernelBuffer(count: vm.size(of: part))
            try vcpu.read(part, into: buffer)
            body(buffer)
            try vcpu.write(part, from: buffer)
        }
        let value = UInt64(random.next() & 0xFFFF_F000)
        let system: VCPUStatePart = vm.size(of: .systemRegisters2) > 0 ? .systemRegisters2 : .systemRegisters
        if Bool.random(using: &random) { try edit(.registers) { $0.store(value, at: 0) } }
        if Bool.random(using: &random) { try edit(.registers) { $0.store(value, at: 128) } }  // RIP: no longer the reset vector
        if Bool.random(using: &random) { try edit(system) { $0.store(value, at: 232) } }  // CR2
        if Bool.random(using: &random) { try edit(system) { $0.store(value, at: 72) } }  // the base of FS
        if Bool.random(using: &random) { try edit(.debugRegisters) { $0.store(value, at: 8) } }
        if Bool.random(using: &random) { try edit(.extendedControlRegisters) { $0.store(value & 0x1000 == 0 ? UInt64(1) : 3, at: 16) } }
        if Bool.random(using: &random) {
            try edit(.extendedState) {
                $0.store(value, at: 160)
                $0.store($0.load64(at: 512) | 2, at: 512)
            }
        }
        if Bool.random(using: &random) { try edit(.mpState) { $0.store(value & 0x1000 == 0 ? UInt32(0) : 3, at: 0) } }
        if Bool.random(using: &random) { try edit(.events) { $0.store(UInt8(value >> 12 & 1), at: 14) } }  // NMIs are masked
        if Bool.random(using: &random) {
            try edit(.events) {
                $0.store(UInt8(13), at: 1)
                $0.store(UInt8(1), at: 3)  // a general protection fault is pending
            }
        }
        if Bool.random(using: &random) { try edit(.localAPIC) { $0.store(UInt32(0x1FF), at: 0xF0) } }
        for msr: UInt32 in [0x174, 0xC000_0081, 0xC000_0082, 0xC000_0102] where Bool.random(using: &random) {
            _ = vcpu.set(msr: msr, to: value)
        }
        if Bool.random(using: &random) { try? vcpu.setTSCOffset(value) }
    }

    @Test(arguments: 1...24) func afterPracticeWithAnotherStateItIsRestoredAsWithoutPractice(seed: UInt64) throws {
        let pair = try Pair()
        var random = SplitMix(seed)
        let io = VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan)
        try change(pair.first.vm, pair.first.vcpu, by: &random)
        let earlier = try io.save(pair.first.vcpu, collect: nil)
        try change(pair.first.vm, pair.first.vcpu, by: &random)
        let later = try io.save(pair.first.vcpu, collect: nil)

        let practised = VCPUStateIO(vm: pair.second.vm, vcpu: pair.second.vcpu, plan: pair.plan)
        if seed % 2 == 0 {  // its own rehearsal comes first
            try practised.restore(try practised.save(pair.second.vcpu, collect: nil), to: pair.second.vcpu)
        }
        if seed % 3 != 0 {
            try practised.anticipateTSC(of: earlier, to: pair.second.vcpu)
            try practised.prepareEntry(pair.second.vcpu)
        }
        for _ in 0..<2 { try practised.anticipate(earlier, to: pair.second.vcpu) }
        try practised.restore(later, to: pair.second.vcpu)
        let fresh = try pair.another()
        let plain = VCPUStateIO(vm: fresh.vm, vcpu: fresh.vcpu, plan: pair.plan)
        try plain.restore(later, to: fresh.vcpu)

        let (one, other) = (try practised.save(pair.second.vcpu, collect: nil), try plain.save(fresh.vcpu, collect: nil))
        for part in other.parts { #expect(one[part.part] == part.bytes, "\(part.part.name)") }
        for (found, expected) in zip(one.msrs, other.msrs) { #expect(found == expected) }
        #expect(one.tscOffset == other.tscOffset)
    }

    /// There is no memory at the reset vector: it could not run an instruction without an exit.
    @Test(arguments: [0, 1, 3] as [UInt32]) func aVCPUThatIsPreparedForEntryIsWhatItWas(runState: UInt32) throws {
        let (vm, vcpu) = try Pair().second
        let plan = try Pair().plan
        let state = KernelBuffer(count: 4)
        state.store(runState, at: 0)
        try vcpu.write(.mpState, from: state)
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: plan)
        let before = try io.save(vcpu, collect: nil, isFullLength: true)
        try io.prepareEntry(vcpu)
        let after = try io.save(vcpu, collect: nil, isFullLength: true)
        for part in before.parts {
            // Not XSTATE_BV: what is as after a reset may be said to be in use.
            let found = after[part.part], compared = 512..<520
            let isSame = part.part == .extendedState ? found.map { $0.masking(compared) } == part.bytes.masking(compared) : found == part.bytes
            #expect(isSame, "\(part.part.name)")
        }
        for (found, expected) in zip(after.msrs, before.msrs) where expected.index != MSRPlan.timeStampCounter { #expect(found == expected) }
        #expect(after.tscOffset == before.tscOffset)
        vcpu.requestExit()
        #expect(try vcpu.runUntilExit() == .interrupted)  // nothing is half done
    }

    @Test func whatAVCPUHasIsNotWrittenAgainAndWhatItHasRunWithIs() throws {
        let pair = try Pair()
        try disturb(pair.first.vm, pair.first.vcpu)
        let state = try VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan).save(pair.first.vcpu, collect: nil)
        let (vm, vcpu) = pair.second
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: pair.plan)
        /// Behind the back of `io`: whoever writes debug registers again puts them right.
        func damage() throws {
            let debug = KernelBuffer(count: 128)
            debug.store(UInt64(0x9999), at: 0)
            try vcpu.write(.debugRegisters, from: debug)
        }
        func isDamaged() throws -> Bool {
            let debug = KernelBuffer(count: 128)
            try vcpu.read(.debugRegisters, into: debug)
            return debug.load64(at: 0) == 0x9999
        }
        try io.anticipate(state, to: vcpu)
        try damage()
        try io.restore(state, to: vcpu)
        #expect(try isDamaged(), "it was written though it had not changed")
        try io.finishRestoring(state, to: vcpu)  // it is about to run
        try io.restore(state, to: vcpu)
        #expect(try !isDamaged())
        try damage()
        _ = try io.save(vcpu, collect: nil)  // the buffers hold something else now
        try io.restore(state, to: vcpu)
        #expect(try !isDamaged())
    }

    @Test(arguments: [LocalAPIC.TimerMode.oneShot, .periodic, .deadline], [LocalAPIC.TimerMode.oneShot, .periodic, .deadline])
    func whatIsAnticipatedStartsNoTimerAndDisturbsNone(earlier: LocalAPIC.TimerMode, later: LocalAPIC.TimerMode) throws {
        let pair = try Pair()
        let plain = try VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan).save(pair.first.vcpu, collect: nil)
        let untouched = try #require(plain[.localAPIC])
        func state(_ mode: LocalAPIC.TimerMode) -> VCPUState {
            var state = plain
            let page = timerPage(mode, of: untouched)
            state.parts = plain.parts.map { $0.part == .localAPIC ? .init(part: $0.part, bytes: page) : $0 }
            if mode == .deadline { state.msrs = plain.msrs.map { $0.index == MSRPlan.tscDeadline ? .init(index: $0.index, value: 1 << 60) : $0 } }
            return state
        }
        let vcpu = pair.second.vcpu
        let page = KernelBuffer(count: LocalAPIC.size)
        let io = VCPUStateIO(vm: pair.second.vm, vcpu: vcpu, plan: pair.plan)
        try io.anticipate(state(earlier), to: vcpu)
        try vcpu.read(.localAPIC, into: page)
        for register in [0x380, 0x390] { #expect(page.load32(at: register) == 0) }
        #expect(page.load32(at: 0x320) == 0x10000)  // as after a reset
        #expect(vcpu.value(ofMSR: MSRPlan.tscDeadline) == 0)
        try io.restore(state(later), to: vcpu)
        try vcpu.read(.localAPIC, into: page)
        let apic = LocalAPIC(page.bytes(LocalAPIC.size))
        #expect(apic.timerMode == later)
        #expect((apic.timerInitialCount > 0) == (later != .deadline))
        #expect(vcpu.value(ofMSR: MSRPlan.tscDeadline) == (later == .deadline ? 1 << 60 : 0))
    }

    /// A page whose timer has so long to run, a second for one.
    private func timerPage(_ mode: LocalAPIC.TimerMode, of page: [UInt8], left: UInt32 = 1_000_000_000) -> [UInt8] {
        let buffer = KernelBuffer(count: LocalAPIC.size)
        buffer.assign(page)
        buffer.store(UInt32(0x1FF), at: 0xF0)
        buffer.store(UInt32(0x45) | mode.rawValue << 17, at: 0x320)
        buffer.store(UInt32(0xB), at: 0x3E0)
        if mode != .deadline { for register in [0x380, 0x390] { buffer.store(left, at: register) } }
        return buffer.bytes(LocalAPIC.size)
    }

    enum Interrupter: CaseIterable { case none, oneShot, deadline, periodic, oneShotRunDown, counter }

    private func give(_ interrupter: Interrupter, to vcpu: VCPU) throws {
        let apic = KernelBuffer(count: LocalAPIC.size)
        try vcpu.read(.localAPIC, into: apic)
        let page = apic.bytes(LocalAPIC.size)
        switch interrupter {
        case .none: break
        case .oneShot: apic.assign(timerPage(.oneShot, of: page))
        case .deadline: apic.assign(timerPage(.deadline, of: page))
        case .periodic: apic.assign(timerPage(.periodic, of: page))
        case .oneShotRunDown: apic.assign(timerPage(.oneShot, of: page, left: 1000))
        case .counter: apic.store(UInt32(0x46), at: 0x340)
        }
        try vcpu.write(.localAPIC, from: apic)
    }

    /// Only what may have happened without a trace makes KVM be asked, which takes a KVM_RUN.
    @Test(arguments: zip(Interrupter.allCases, [[0, 0], [0, 0], [0, 0], [1, 1], [1, 2], [1, 1]]))
    func whatKVMHasPutOffIsCollectedWhereItWouldBeLost(interrupter: Interrupter, expected: [Int]) throws {
        let pair = try Pair()
        let (vm, vcpu) = pair.first
        try give(interrupter, to: vcpu)
        SystemClock.sleep(.milliseconds(5))
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: pair.plan)
        let counts = try expected.map { _ in
            var count = 0
            _ = try io.save(vcpu) { count += 1 }
            return count
        }
        #expect(counts == expected)
    }

    /// What another vCPU or a device sends to one that stands, between the two steps in which it is saved.
    enum Sent: CaseIterable { case nothing, interrupt, initialization }

    /// Vector 0x31, or INIT, by a message (Intel SDM volume 3, 11.11).
    private func send(_ sent: Sent, to vm: VirtualMachine) throws {
        switch sent {
        case .nothing: break
        case .interrupt: try vm.signal(address: 0xFEE0_0000, data: 0x31)
        case .initialization: try vm.signal(address: 0xFEE0_0000, data: 0x4500)
        }
    }

    @Test(arguments: Sent.allCases) func whatComesAfterAVCPUHasBegunIsSaved(sent: Sent) throws {
        let pair = try Pair()
        let (vm, vcpu) = pair.first
        try disturb(vm, vcpu)
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: pair.plan)
        let before = try io.save(vcpu, collect: {})
        var draft = SectionDraft(capacity: 0)
        #expect(try io.begin(vcpu, to: &draft))
        #expect(draft.content.count > 0)
        try send(sent, to: vm)
        try io.save(vcpu, collect: { Issue.record("nothing is hidden") }, to: &draft)
        let state = try draft.state()
        #expect(comparable(state) == comparable(try io.save(vcpu, collect: {})))  // as it is now
        switch sent {
        case .nothing: #expect(comparable(state) == comparable(before))
        case .interrupt:
            #expect(state[.registers] == before[.registers])
            #expect(state[.localAPIC]?[0x212] == 2)  // 0x31 in the IRR
        case .initialization:
            #expect(state[.registers] != before[.registers])
            #expect(state[.registers]?[128...129] == [0xF0, 0xFF])  // at its reset vector
        }
        #expect(draft.section("cpu", instance: 0, version: 1) == EncodedSection("cpu", version: 1, content: draft.content.bytes))
    }

    @Test func whatWasReadForAStopThatCameToNothingIsForgotten() throws {
        let pair = try Pair()
        let (vm, vcpu) = pair.first
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: pair.plan)
        _ = try io.save(vcpu, collect: {})
        var draft = SectionDraft(capacity: 0)
        #expect(try io.begin(vcpu, to: &draft))
        #expect(vcpu.set(msr: 0x174, to: 0x5A5A))  // it has run on: the registers are the same
        #expect(try !io.begin(vcpu, isEarly: false, to: &draft))
        try io.save(vcpu, collect: {}, to: &draft)
        #expect(try draft.state().msrs.first { $0.index == 0x174 }?.value == 0x5A5A)
    }

    /// Of a timer that counts KVM may have to be asked, and nobody knows of a vCPU that was never saved.
    @Test(arguments: zip(Interrupter.allCases, [true, false, true, false, false, false]))
    func onlyTheOwnThreadSavesAVCPUOfWhichSomethingMayBeHidden(interrupter: Interrupter, isForAny: Bool) throws {
        let pair = try Pair()
        let (vm, vcpu) = pair.first
        try give(interrupter, to: vcpu)
        let io = VCPUStateIO(vm: vm, vcpu: vcpu, plan: pair.plan)
        var draft = SectionDraft(capacity: 0)
        #expect(try !io.begin(vcpu, to: &draft))
        try io.save(vcpu, collect: nil, to: &draft)
        draft.removeAll()
        #expect(try io.begin(vcpu, to: &draft) == isForAny)
        #expect((draft.content.count > 0) == isForAny)
    }

    @Test func itIsReadAsItWasWrittenAndEveryTruncationIsRefused() throws {
        let pair = try Pair()
        var draft = SectionDraft(capacity: 0)
        try VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan).save(pair.first.vcpu, collect: {}, to: &draft)
        let state = try draft.state()
        #expect(state.msrs.map(\.index).sorted() == pair.plan.saved && state.time > 0)
        for part in state.parts where part.part != .extendedState && part.part != .localAPIC {
            let buffer = KernelBuffer(count: pair.first.vm.size(of: part.part))
            try pair.first.vcpu.read(part.part, into: buffer)
            #expect(part.bytes == buffer.bytes(part.part.length(in: buffer)), "\(part.part.name)")
        }
        for length in stride(from: 0, to: draft.content.count, by: 7) {
            #expect(throws: WireError.self) {
                var reader = WireReader(Array(draft.content.bytes.prefix(length)))
                _ = try VCPUState(from: &reader)
                try reader.finish()
            }
        }
    }

    @Test func aLongerStructureIsTakenOnlyIfItsTailIsZero() throws {
        let pair = try Pair()
        let io = VCPUStateIO(vm: pair.first.vm, vcpu: pair.first.vcpu, plan: pair.plan)
        let saved = try io.save(pair.first.vcpu, collect: {})
        for (tail, isTaken) in [(UInt8(0), true), (1, false)] {
            var longer = saved
            longer.parts = saved.parts.map { part in
                let more = 63 + pair.second.vm.size(of: .extendedState) - part.bytes.count
                return part.part == .extendedState ? .init(part: part.part, bytes: part.bytes + [UInt8](repeating: 0, count: more) + [tail]) : part
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
        var saved = try io.save(pair.first.vcpu, collect: {})
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
