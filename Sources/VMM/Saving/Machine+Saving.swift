internal import Checkpoint
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// The versions at which the sections of a machine's checkpoint are written: what the reader understands.
struct PromisedVersions: Sendable, Equatable {
    private let versions: [String: UInt16]

    /// Checks that every section the image writes has a version that it can write.
    init(_ promised: [SectionVersion], image: WorkerImage) throws(VMMError) {
        var versions: [String: UInt16] = [:]
        for section in promised { versions[section.name] = section.version }
        for range in image.sections {
            guard let version = versions[range.name] else { throw VMMError("no version was promised for section \(range.name)") }
            if !range.writes.contains(version) { throw VMMError("section \(range.name) cannot be written at version \(version) here") }
        }
        self.versions = versions
    }

    /// What an image writes when it writes for itself.
    init(newestOf image: WorkerImage) {
        versions = Dictionary(image.sections.map { ($0.name, $0.writes.upperBound) }, uniquingKeysWith: max)
    }

    var forCheckpoint: SectionVersions { SectionVersions(versions) }

    subscript(name: String) -> UInt16 { versions[name] ?? 1 }
}

/// Room for a checkpoint and its vCPU sections, set aside while the guest runs.
final class SavingRoom: @unchecked Sendable {
    // `vcpus[i]` belongs to vCPU i's thread until it has begun to save, then to the one that saves the rest; all of it then to the one that writes the checkpoint.
    var writer = CheckpointWriter(capacity: 256 << 10)
    /// What a rehearsal has written.
    var written: [UInt8] = []
    let vcpus: [ForOne]

    final class ForOne: Sendable {
        let section = Mutex<EncodedSection?>(nil)
        fileprivate let draft = Mutex(SectionDraft(capacity: 16 << 10))
    }

    init(vcpus: Int) { self.vcpus = (0..<vcpus).map { _ in ForOne() } }
}

extension Machine {
    /// What a state is saved for.
    enum SavingPurpose {
        case handover
        /// Of a vCPU that runs on.
        case practice
        /// Of one that has never run: it takes as much room as any other state may.
        case rehearsal
    }

    /// Forgets what was saved before, on the vCPU's thread, as soon as it is parked, and saves what nobody changes but the vCPU itself if that is to be done so early.
    ///
    /// - Returns: whether any thread may save the rest, and not only this one.
    func beginSaving(
        _ thread: VCPUThread, _ index: Int, into room: SavingRoom, isEarly: Bool, for purpose: SavingPurpose = .handover
    ) throws(VMMError) -> Bool {
        let own = room.vcpus[index]
        own.section.withLock { $0 = nil }  // the memory is the draft's own again
        return try own.draft.withLock { draft throws(VMMError) in
            try stateIO[index].begin(thread.vcpu, isEarly: isEarly, isFullLength: purpose == .rehearsal, to: &draft)
        }
    }

    /// Saves one vCPU, on its thread or as ``beginSaving(_:_:into:isEarly:for:)`` has said, when all are parked. Practice and rehearsal of saving do no KVM_RUN.
    func save(
        _ thread: VCPUThread, _ index: Int, into room: SavingRoom, versions: PromisedVersions, for purpose: SavingPurpose = .handover
    ) throws(VMMError) {
        let own = room.vcpus[index]
        let section = try own.draft.withLock { draft throws(VMMError) in
            try stateIO[index].save(
                thread.vcpu, collect: purpose == .handover ? { thread.collectExpiredTimers() } : nil, isFullLength: purpose == .rehearsal, to: &draft)
            return draft.section(MachineSections.cpu, instance: UInt32(index), version: versions[MachineSections.cpu])
        }
        own.section.withLock { $0 = section }
    }

    /// Writes the whole machine but its RAM. Every vCPU has been saved into `room`, and the devices are quiet.
    func collect(
        from room: SavingRoom, writer version: String, generation: UInt32, versions: PromisedVersions, isPaused: Bool
    ) throws(VMMError) -> [UInt8] {
        let clock = try ClockState.save(vm, tscKHz: tscKHz)
        let chips = try saveInterruptControllers()
        room.writer.begin(writer: version, machine: blueprint.machineID, generation: UInt64(generation))
        room.writer.section(MachineSections.machine, version: versions[MachineSections.machine]) { state(isPaused).encode(to: &$0) }
        for (index, slot) in room.vcpus.enumerated() {
            guard let section = slot.section.withLock({ $0.take() }) else { throw VMMError("vCPU \(index) has not saved its state") }
            room.writer.append(section)
        }
        room.writer.section(MachineSections.clock, version: versions[MachineSections.clock]) { clock.encode(to: &$0) }
        room.writer.section(MachineSections.interruptControllers, version: versions[MachineSections.interruptControllers]) {
            for chip in chips { $0.blob(chip) }
        }
        devices.save(into: &room.writer, versions: versions)
        return room.writer.finish()
    }

    private func state(_ isPaused: Bool) -> MachineState {
        let ending: MachineState.Ending =
            switch guestEnding {
            case .powerOff: .powerOff
            case .reset: .reset
            case .failure, nil: .none
            }
        return MachineState(
            fingerprint: fingerprint.bytes, vcpus: UInt32(blueprint.vcpus), memory: UInt64(blueprint.memory), isPaused: isPaused, ending: ending)
    }

    private func saveInterruptControllers() throws(VMMError) -> [[UInt8]] {
        let buffer = KernelBuffer(count: VirtualMachine.interruptChipSize)
        var chips: [[UInt8]] = []
        for chip in InterruptChip.allCases {
            try doing("reading the interrupt controllers") { () throws(Errno) in try vm.read(chip, into: buffer) }
            chips.append(buffer.bytes(buffer.count))
        }
        return chips
    }
}
