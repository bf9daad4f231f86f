package import Checkpoint
package import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// Buffers for one vCPU's state, set aside before anything stops, and the orders in which KVM wants it read and written.
package final class VCPUStateIO: Sendable {
    /// In the order they are read. Before these comes MP_STATE, since reading it may carry out an INIT; after them MSRs.
    private static let ownParts: [VCPUStatePart] = [
        .registers, .systemRegisters, .systemRegisters2, .extendedState, .extendedControlRegisters, .debugRegisters,
    ]
    /// What others change while the vCPU stands, by interrupts. Read after all that is its own, MP_STATE apart; events last.
    private static let sharedParts: [VCPUStatePart] = [.localAPIC, .nestedState, .events]
    private static let restoringOrder: [VCPUStatePart] = [
        .systemRegisters, .systemRegisters2, .registers, .extendedControlRegisters, .extendedState, .debugRegisters, .localAPIC,
    ]
    private static let restoringOrderAfterMSRs: [VCPUStatePart] = [.mpState, .events, .nestedState]
    /// Always written, since other parts change it, or time does.
    private static func isAlwaysWritten(_ part: VCPUStatePart) -> Bool { part == .localAPIC || part == .events || part == .nestedState }
    /// A vCPU that is in a nested guest, or in SMM, does not take what comes next as a new one does.
    private static func canBeAnticipated(_ part: VCPUStatePart) -> Bool { part != .events && part != .nestedState }

    /// What the vCPU has been given already. It has not run since: so it has it.
    private struct Given {
        /// A bit for each part, by its number: its buffer holds what was written last.
        private var parts: UInt32 = 0
        var tscOffset: UInt64?
        /// All of a state's, in the order they were written.
        var msrs: [VCPUState.MSR] = []

        subscript(part: VCPUStatePart) -> Bool {
            get { parts & 1 &<< UInt32(part.rawValue) != 0 }
            set { if newValue { parts |= 1 &<< UInt32(part.rawValue) } else { parts &= ~(1 &<< UInt32(part.rawValue)) } }
        }
    }

    /// By the parts' numbers; `nil` for what this host's KVM does not have.
    private let buffers: [KernelBuffer?]
    private let msrs: [MSRBuffer]
    /// What is being restored: another image may have saved other MSRs than this one saves.
    private let restoring = MSRBuffer()
    private let hasOffset: Bool
    /// Of the vCPU's TSC, which changes here alone; 0 until it is known.
    private let tscKHz: Atomic<UInt32>
    private let given = Mutex(Given())
    /// Whether, by the LAPIC as it was saved last, KVM must be asked first for what it has put off.
    private let collects = Atomic(false)
    /// Whether, by the same, it may have to be asked.
    private let mayCollect = Atomic(true)
    /// What ``begin(_:isEarly:isFullLength:to:)`` has read.
    private let begun = Mutex<Reading?>(nil)
    /// To see whether the registers are still those that were read.
    private let registersNow: KernelBuffer

    package init(vm: VirtualMachine, vcpu: VCPU, plan: MSRPlan) {
        let largest = VCPUStatePart.allCases.map(\.rawValue).max() ?? 0
        var buffers = [KernelBuffer?](repeating: nil, count: Int(largest) + 1)
        for part in VCPUStatePart.allCases {
            let size = vm.size(of: part)
            if size > 0 { buffers[Int(part.rawValue)] = KernelBuffer(count: size) }
        }
        self.buffers = buffers
        registersNow = KernelBuffer(count: vm.size(of: .registers))
        msrs = MSRBuffer.all(Self.deadlineLast(plan.saved) { $0 })
        hasOffset = (try? vcpu.tscOffset()) != nil
        tscKHz = Atomic((try? vcpu.tscKHz()) ?? 0)
    }

    private func buffer(_ part: VCPUStatePart) -> KernelBuffer? { buffers[Int(part.rawValue)] }

    /// What has been read and is not in the buffers.
    private struct Reading {
        var tscOffset: UInt64?
        var tscKHz: UInt32
        /// CLOCK_MONOTONIC when the local APIC was read.
        var time: Int64 = 0
    }

    /// Reads and writes beforehand, on the vCPU's thread, what nobody changes but the vCPU itself, which has completed what was half done. Others may still run:
    /// what their interrupts change, ``save(_:collect:isFullLength:to:)`` reads when all have stopped.
    ///
    /// - Parameter isEarly: `false`: nothing is read beforehand, and what was is forgotten.
    /// - Returns: whether any thread may do that. `false`: KVM may have to be asked for what it has put off, which the vCPU's own thread does.
    package func begin(_ vcpu: VCPU, isEarly: Bool = true, isFullLength: Bool = false, to draft: inout SectionDraft) throws(VMMError) -> Bool {
        draft.removeAll()
        begun.withLock { $0 = nil }
        if !isEarly || mayCollect.load(ordering: .relaxed) { return false }
        let reading = try readOwn(vcpu)
        encodeOwn(isFullLength, to: &draft.content)
        draft.sum()
        begun.withLock { $0 = reading }
        return true
    }

    /// Reads everything and writes it as a ``VCPUState`` is read, when the vCPU has completed what was half done. On its thread, or on any after a
    /// ``begin(_:isEarly:isFullLength:to:)`` that said so.
    ///
    /// An expiry that has not reached the IRR is lost with the old vCPU, unless the timer has a deadline: that fires again where it is restored. So a
    /// periodic timer, or a one-shot one that has expired, is read after `collect`, and once more if it may have expired since; and so is a vCPU that takes
    /// interrupts from performance counters, which KVM delivers as late.
    ///
    /// - Parameters:
    ///   - collect: moves to the IRR what KVM has not moved yet, which takes a KVM_RUN; `nil` where nobody is to have this state.
    ///   - isFullLength: with the zeros at the end of XSAVE. Whoever restores it fills up with zeros, since hosts differ in how much they have.
    package func save(_ vcpu: VCPU, collect: (() -> Void)?, isFullLength: Bool = false, to draft: inout SectionDraft) throws(VMMError) {
        if var reading = begun.withLock({ $0.take() }) {
            if try isAsBegun(vcpu) {
                try readShared(vcpu, &reading)
                if collect == nil || !collects.load(ordering: .relaxed) { return encodeRest(reading, to: &draft.content) }
            }
        }
        draft.removeAll()
        let reading = try readToTheEnd(vcpu, collect)
        encodeOwn(isFullLength, to: &draft.content)
        encodeRest(reading, to: &draft.content)
    }

    private func readToTheEnd(_ vcpu: VCPU, _ collect: (() -> Void)?) throws(VMMError) -> Reading {
        var collected: Int64?
        var wasExpired = false
        if let collect, collects.load(ordering: .relaxed) {
            collected = SystemClock.monotonic()
            collect()
        }
        for _ in 0..<3 {
            var reading = try readOwn(vcpu)
            guard let apic = try readShared(vcpu, &reading), collects.load(ordering: .relaxed), let collect else { return reading }
            // A one-shot timer seen expired before this round was in the IRR by its `collect`.
            if let collected, !apic.mayHaveExpired(within: reading.time - collected) || (wasExpired && apic.isExpiredOneShot) { return reading }
            wasExpired = apic.isExpiredOneShot
            collected = SystemClock.monotonic()
            collect()
        }
        var reading = try readOwn(vcpu)
        try readShared(vcpu, &reading)
        return reading
    }

    private func readOwn(_ vcpu: VCPU) throws(VMMError) -> Reading {
        given.withLock { $0 = Given() }  // the buffers are about to hold something else
        try read(.mpState, of: vcpu)
        for part in Self.ownParts { try read(part, of: vcpu) }
        for chunk in msrs { try read(chunk, of: vcpu) }
        var offset: UInt64?
        if hasOffset { offset = try doing("reading the TSC offset of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.tscOffset() } }
        var frequency = tscKHz.load(ordering: .relaxed)
        if frequency == 0 { frequency = try doing("reading the TSC frequency of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.tscKHz() } }
        return Reading(tscOffset: offset, tscKHz: frequency)
    }

    /// The local APIC; `nil` where there is none.
    @discardableResult
    private func readShared(_ vcpu: VCPU, _ reading: inout Reading) throws(VMMError) -> LocalAPIC? {
        reading.time = try atOneMoment { _ throws(VMMError) in
            try read(.localAPIC, of: vcpu)
            return buffer(.localAPIC).map { LocalAPIC($0.bytes(LocalAPIC.size)).isCounting } ?? false
        }
        for part in Self.sharedParts where part != .localAPIC { try read(part, of: vcpu) }
        guard let page = buffer(.localAPIC) else { return nil }
        let apic = LocalAPIC(page.bytes(LocalAPIC.size))
        collects.store(apic.mayHaveExpired(within: .max) || apic.takesPerformanceInterrupts, ordering: .relaxed)
        mayCollect.store(apic.mayHideInterrupts, ordering: .relaxed)
        return apic
    }

    /// Whether the vCPU's own state is still what ``begin(_:isEarly:isFullLength:to:)`` has read. Another vCPU's INIT or SIPI changes it: KVM carries them out when MP_STATE
    /// is read, and either moves the instruction pointer of one that has run.
    private func isAsBegun(_ vcpu: VCPU) throws(VMMError) -> Bool {
        guard let state = buffer(.mpState), let registers = buffer(.registers) else { return false }
        let before = state.load32(at: 0)
        try read(.mpState, of: vcpu)
        guard state.load32(at: 0) == before else { return false }
        try read(.registers, of: vcpu, into: registersNow)
        return registersNow.isSame(as: registers)
    }

    // Straight from the buffers: while the guest stands nothing is copied twice.

    private func encodeOwn(_ isFullLength: Bool, to writer: inout WireWriter) {
        writer.u32(UInt32(clamping: buffers.count { $0 != nil }))
        for part in Self.ownParts { encode(part, isFullLength, to: &writer) }
    }

    private func encodeRest(_ reading: Reading, to writer: inout WireWriter) {
        encode(.mpState, to: &writer)
        for part in Self.sharedParts { encode(part, to: &writer) }
        writer.u32(UInt32(clamping: msrs.reduce(0) { $0 + $1.count }))
        for chunk in msrs {
            for position in 0..<chunk.count {
                writer.u32(chunk.index(at: position))
                writer.u64(chunk[position])
            }
        }
        writer.optional(reading.tscOffset) { $0.u64($1) }
        writer.u32(reading.tscKHz)
        writer.i64(reading.time)
    }

    private func encode(_ part: VCPUStatePart, _ isFullLength: Bool = true, to writer: inout WireWriter) {
        guard let buffer = buffer(part) else { return }
        var length = part.length(in: buffer)
        if part == .extendedState, !isFullLength { length = buffer.contentLength(within: length) }
        writer.u16(part.rawValue)
        writer.blob { bytes in buffer.append(length, to: &bytes) }
    }

    /// Does what may depend on the time, and does it again if it says so and the thread was interrupted meanwhile. CLOCK_MONOTONIC when it was done:
    /// what a timer's count is off by shifts its ticks for good.
    @discardableResult
    private func atOneMoment(_ body: (_ now: Int64) throws(VMMError) -> Bool) throws(VMMError) -> Int64 {
        var began: Int64 = 0
        for _ in 0..<Self.attempts {
            began = SystemClock.monotonic()
            let matters = try body(began)
            let ended = SystemClock.monotonic()
            if !matters || ended - began < Self.moment { return began + (ended - began) / 2 }
        }
        return began
    }

    private static let attempts = 5
    /// Nanoseconds within which everything counts as simultaneous.
    private static let moment: Int64 = 50_000

    private func read(_ part: VCPUStatePart, of vcpu: VCPU) throws(VMMError) {
        if let buffer = buffer(part) { try read(part, of: vcpu, into: buffer) }
    }

    private func read(_ part: VCPUStatePart, of vcpu: VCPU, into buffer: KernelBuffer) throws(VMMError) {
        try doing("reading \(part.name) of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.read(part, into: buffer) }
    }

    private func read(_ chunk: MSRBuffer, of vcpu: VCPU) throws(VMMError) {
        let count = try doing("reading MSRs of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.read(chunk) }
        if count < chunk.count { throw VMMError("MSR \(hexadecimal(chunk.index(at: count))) of vCPU \(vcpu.index) cannot be read") }
    }

    /// Writes everything but the interrupt controllers' shared part, the clock and what ``finishRestoring(_:to:)`` does, on any thread that has the
    /// vCPU to itself (``Machine/forEveryVCPU(isPractice:preparing:_:)``), before its first run. Guest memory is not touched.
    ///
    /// What the vCPU has been given already is not written again: whatever an ioctl of a vCPU does, most of its time goes into making that vCPU the
    /// thread's.
    package func restore(_ state: VCPUState, to vcpu: VCPU) throws(VMMError) { try write(state, to: vcpu, isAnticipated: false) }

    /// Gives a vCPU that has never run what it will probably be restored to, without starting a timer: whatever is still so then need not be written any
    /// more. If it fails, only less is given.
    package func anticipate(_ state: VCPUState, to vcpu: VCPU) throws(VMMError) { try write(state, to: vcpu, isAnticipated: true) }

    /// Gives a vCPU that has never run its TSC alone, for all of which to have it before any of them does ``prepareEntry(_:)``.
    package func anticipateTSC(of state: VCPUState, to vcpu: VCPU) throws(VMMError) {
        try writeFrequency(of: state, to: vcpu)
        try given.withLock { given throws(VMMError) in try writeOffset(of: state, to: vcpu, &given) }
    }

    /// Has KVM do for a vCPU that has never run what does not depend on its state (``VCPU/prepareEntry()``). On its thread, before ``anticipate(_:to:)``: nothing
    /// counts as given after it but the TSC.
    package func prepareEntry(_ vcpu: VCPU) throws(VMMError) {
        let offset = given.withLock { given in
            defer { given = Given() }
            return given.tscOffset
        }
        let exit = try doing("preparing vCPU \(vcpu.index) to enter the guest") { () throws(Errno) in try vcpu.prepareEntry() }
        if exit != .interrupted { throw VMMError("vCPU \(vcpu.index) cannot be entered as a new one is: KVM_RUN said \(exit)") }
        // KVM may have moved it where the host's TSC is not stable.
        if let offset, (try? vcpu.tscOffset()) == offset { given.withLock { $0.tscOffset = offset } }
    }

    private func writeFrequency(of state: VCPUState, to vcpu: VCPU) throws(VMMError) {
        let frequency = tscKHz.load(ordering: .relaxed)
        if state.tscKHz == 0 || frequency == 0 || frequency == state.tscKHz { return }
        try doing("vCPU \(vcpu.index) cannot have its TSC at \(state.tscKHz) kHz, this host's has \(frequency)") { () throws(Errno) in
            try vcpu.setTSCKHz(state.tscKHz)
        }
        tscKHz.store(state.tscKHz, ordering: .relaxed)
    }

    private func writeOffset(of state: VCPUState, to vcpu: VCPU, _ given: inout Given) throws(VMMError) {
        guard let offset = state.tscOffset, offset != given.tscOffset else { return }
        given.tscOffset = nil
        try doing("restoring the TSC offset of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.setTSCOffset(offset) }
        given.tscOffset = offset
    }

    private func write(_ state: VCPUState, to vcpu: VCPU, isAnticipated: Bool) throws(VMMError) {
        try writeFrequency(of: state, to: vcpu)
        try given.withLock { given throws(VMMError) in
            for part in Self.restoringOrder { try write(part, of: state, to: vcpu, &given, isAnticipated) }
            try writeMSRs(of: state, to: vcpu, &given, isAnticipated)
            for part in Self.restoringOrderAfterMSRs { try write(part, of: state, to: vcpu, &given, isAnticipated) }
        }
    }

    private func write(_ part: VCPUStatePart, of state: VCPUState, to vcpu: VCPU, _ given: inout Given, _ isAnticipated: Bool) throws(VMMError) {
        if isAnticipated, !Self.canBeAnticipated(part) { return }
        guard var bytes = state[part] else { return }
        guard let buffer = buffer(part) else { throw VMMError("vCPU \(vcpu.index) has \(part.name), which this host's KVM does not know") }
        if bytes.count > buffer.count {
            if bytes[buffer.count...].contains(where: { $0 != 0 }) {
                throw VMMError("\(part.name) of vCPU \(vcpu.index) has \(bytes.count) bytes that matter, this host's KVM takes \(buffer.count)")
            }
            bytes.removeLast(bytes.count - buffer.count)
        }
        guard part == .localAPIC else { return try write(part, bytes, buffer, to: vcpu, &given) }
        var saved = LocalAPIC(bytes)
        if isAnticipated { saved.removeTimer() }
        try atOneMoment { now throws(VMMError) in
            var page = saved
            page.advanceTimer(by: now.subtractingReportingOverflow(state.time).partialValue)
            try write(part, page.bytes, buffer, to: vcpu, &given)
            return page.isCounting
        }
    }

    private func write(_ part: VCPUStatePart, _ bytes: [UInt8], _ buffer: KernelBuffer, to vcpu: VCPU, _ given: inout Given) throws(VMMError) {
        if given[part], !Self.isAlwaysWritten(part), buffer.holds(bytes) { return }
        given[part] = false
        // A vCPU that these put at its reset vector is made runnable by KVM.
        if part == .systemRegisters || part == .systemRegisters2 { given[.mpState] = false }
        buffer.assign(bytes)
        try doing("restoring \(part.name) of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.write(part, from: buffer) }
        given[part] = true
    }

    /// After the APIC, which must be in deadline mode already, or KVM ignores the deadline; and that as the last, by the TSC as it will be.
    private func writeMSRs(of state: VCPUState, to vcpu: VCPU, _ given: inout Given, _ isAnticipated: Bool) throws(VMMError) {
        try writeOffset(of: state, to: vcpu, &given)
        let msrs = Self.deadlineLast(state.msrs) { $0.index }
        let known = given.msrs
        given.msrs = []
        restoring.removeAll()
        for (position, msr) in msrs.enumerated() where msr.index != MSRPlan.timeStampCounter && !MSRPlan.isGuestStructure(msr.index) {
            if MSRPlan.dependsOnMoment(msr.index) ? isAnticipated : position < known.count && known[position] == msr { continue }
            try append(msr, for: vcpu)
        }
        try writeRestoring(to: vcpu)
        given.msrs = msrs
    }

    private static func deadlineLast<Element>(_ msrs: [Element], _ index: (Element) -> UInt32) -> [Element] {
        guard let deadline = msrs.firstIndex(where: { index($0) == MSRPlan.tscDeadline }), deadline != msrs.endIndex - 1 else { return msrs }
        var msrs = msrs
        msrs.append(msrs.remove(at: deadline))
        return msrs
    }

    /// Writes what makes KVM write to guest memory. After the commit, on the vCPU's thread, before its first run: a vCPU that has not run has no such
    /// structures, so that none need not be written.
    package func finishRestoring(_ state: VCPUState, to vcpu: VCPU) throws(VMMError) {
        given.withLock { $0 = Given() }
        restoring.removeAll()
        for msr in state.msrs where MSRPlan.isGuestStructure(msr.index) && msr.value != 0 { try append(msr, for: vcpu) }
        try writeRestoring(to: vcpu)
    }

    private func append(_ msr: VCPUState.MSR, for vcpu: VCPU) throws(VMMError) {
        if restoring.count == MSRBuffer.maximumCount { try writeRestoring(to: vcpu) }
        restoring.append(msr.index, msr.value)
    }

    private func writeRestoring(to vcpu: VCPU) throws(VMMError) {
        if restoring.count == 0 { return }
        let count = try doing("restoring MSRs of vCPU \(vcpu.index)") { () throws(Errno) in try vcpu.write(restoring) }
        if count < restoring.count {
            let (index, value) = (hexadecimal(restoring.index(at: count)), hexadecimal(restoring[count]))
            throw VMMError("MSR \(index) of vCPU \(vcpu.index) does not take \(value)")
        }
        restoring.removeAll()
    }
}
