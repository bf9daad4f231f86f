internal import Checkpoint
internal import Devices
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// A checkpoint of a machine, verified before anything of it is used. All but the vCPUs' state is decoded, too: whoever restores a vCPU verifies
/// and decodes what it needs, beside the others.
struct DecodedCheckpoint: Sendable {
    private let reader: CheckpointReader
    let machine: MachineState
    let clock: ClockState
    let chips: [[UInt8]]
    let devices: DecodedDevices

    /// - Parameters:
    ///   - bytes: a private copy; the writer can still change the original.
    ///   - target: the machine it will be put into.
    ///   - ranges: what this image reads.
    init(
        _ bytes: [UInt8], for target: Machine, writtenBy generation: UInt32, understanding ranges: [Checkpoint.SectionRange]
    ) throws(CheckpointError) {
        let blueprint = target.blueprint
        let identity = CheckpointIdentity(machine: blueprint.machineID, generation: UInt64(generation))
        reader = try CheckpointReader(bytes, expecting: identity, understanding: ranges, deferring: MachineSections.cpu)
        for section in reader.sections where section.key.name == MachineSections.cpu && section.key.instance >= blueprint.vcpus {
            throw .unknown(section.key, offset: section.offset)
        }
        machine = try reader.decode(MachineSections.machine) { reader, _ throws(WireError) in try MachineState(from: &reader) }
        clock = try reader.decode(MachineSections.clock) { reader, _ throws(WireError) in try ClockState(from: &reader) }
        chips = try reader.decode(MachineSections.interruptControllers) { reader, _ throws(WireError) in
            var chips: [[UInt8]] = []
            for _ in InterruptChip.allCases {
                let start = reader.offset
                let chip = try reader.blob(limit: VirtualMachine.interruptChipSize)
                if chip.count != VirtualMachine.interruptChipSize {
                    throw .invalid(offset: start, field: "the length of an interrupt controller's state", value: UInt64(chip.count))
                }
                chips.append(chip)
            }
            return chips
        }
        devices = try target.devices.decode(reader)
    }

    func vcpu(_ index: Int) throws(CheckpointError) -> VCPUState { try reader.vcpu(index) }
}

extension CheckpointReader {
    func vcpu(_ index: Int) throws(CheckpointError) -> VCPUState {
        try decode(MachineSections.cpu, instance: UInt32(index)) { reader, _ throws(WireError) in try VCPUState(from: &reader) }
    }
}

extension Machine {
    /// Reads a checkpoint and puts it into this machine, which has never run. It stays stopped.
    @discardableResult
    func restore(isPractice: Bool = false, _ read: () throws(VMMError) -> DecodedCheckpoint) throws(VMMError) -> DecodedCheckpoint {
        let saved = try forEveryVCPU(isPractice: isPractice) { () throws(VMMError) in
            let saved = try read()
            if saved.machine.fingerprint != fingerprint.bytes {
                throw VMMError(
                    "the guest would see another machine: fingerprint \(text(fingerprint.bytes)), saved was \(text(saved.machine.fingerprint))")
            }
            return saved
        } _: { saved, thread, index throws(VMMError) in
            let io = self.stateIO[index]
            let state = try doing("checkpoint") { () throws(CheckpointError) in try saved.vcpu(index) }
            try io.restore(state, to: thread.vcpu)
            thread.beforeRunning { vcpu throws(VMMError) in try io.finishRestoring(state, to: vcpu) }
        }
        let buffer = KernelBuffer(count: VirtualMachine.interruptChipSize)
        for (chip, bytes) in zip(InterruptChip.allCases, saved.chips) {
            buffer.assign(bytes)
            try doing("restoring the interrupt controllers") { () throws(Errno) in try vm.write(chip, from: buffer) }
        }
        try saved.clock.restore(to: vm)
        if let ending = devices.restore(saved.devices) { carryEnding(ending) }
        switch saved.machine.ending {
        case .none: break
        case .powerOff: carryEnding(.powerOff)
        case .reset: carryEnding(.reset)
        }
        return saved
    }

    /// Puts a machine that has never run into the state it is in, by a checkpoint that its rehearsal has written.
    func practiseLoading(
        _ rehearsal: [UInt8], writtenBy generation: UInt32, understanding ranges: [Checkpoint.SectionRange]
    ) throws(VMMError) {
        let began = SystemClock.monotonic()
        try restore(isPractice: true) { () throws(VMMError) in
            try doing("rehearsal") { () throws(CheckpointError) in
                try DecodedCheckpoint(rehearsal, for: self, writtenBy: generation, understanding: ranges)
            }
        }
        for thread in threads { thread.beforeRunning(nil) }
        notePractice(since: began)
    }

    /// Gives the vCPUs, which are as a new machine's, the TSCs that the guest's have had a moment ago, and has each do, on its thread, what KVM does when a vCPU
    /// first enters the guest. What cannot be done is done then.
    ///
    /// - Parameter states: of all vCPUs; `nil` where nobody has left them.
    /// - Throws: where a thread may still be about to.
    func prepareEntries(_ states: [VCPUState]?) throws(VMMError) {
        if let states, Self.areInStep(states) {
            for (index, thread) in threads.enumerated() {
                sayingWhatFails("the TSC of vCPU \(index) cannot be given beforehand") { () throws(VMMError) in
                    try stateIO[index].anticipateTSC(of: states[index], to: thread.vcpu)
                }
            }
        }
        try rehearse(
            Stopping(
                beginning: { thread, index, _ in
                    self.sayingWhatFails("the first entry into the guest cannot be prepared") { () throws(VMMError) in
                        try self.stateIO[index].prepareEntry(thread.vcpu)
                    }
                    return true
                }, whenAllHaveStopped: {}, onEach: { _, _ in }, whenAllAreDone: { false }))
    }

    /// Gives the vCPUs, which have never run, what the guest's have had a moment ago, and has KVM set up their MMUs. Most of it they will still have when the
    /// guest stops. It decides nothing: what cannot be given now is given then.
    ///
    /// - Parameter states: of all vCPUs; `nil` where nobody has left them.
    func anticipate(_ states: [VCPUState]?) throws(VMMError) {
        let page = existingPage.withLock { $0 }
        let isInStep = Self.areInStep(states ?? [])
        try forEveryVCPU(isPractice: true) { () throws(VMMError) in
        } _: { _, thread, index throws(VMMError) in
            if var state = states?[index] {
                if !isInStep { state.tscOffset = nil }
                self.sayingWhatFails("what vCPU \(index) has now cannot be given beforehand") { () throws(VMMError) in
                    try self.stateIO[index].anticipate(state, to: thread.vcpu)
                }
            }
            if let page { thread.vcpu.prepareMMU(at: page) }
        }
    }

    /// KVM tells by the order in which offsets are set whether all vCPUs have the same one: set some now and others later only if they all have.
    private static func areInStep(_ states: [VCPUState]) -> Bool { Set(states.map(\.tscOffset)).count == 1 }

    private func sayingWhatFails(_ what: String, _ body: () throws(VMMError) -> Void) {
        do throws(VMMError) { try body() } catch { writeToStandardError("baton-vmm: \(what): \(error)") }
    }

    private func text(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
