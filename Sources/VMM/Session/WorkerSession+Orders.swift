internal import Checkpoint
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Wire

extension WorkerSession {
    /// Carries out one order. `nil`: the answer comes later. Throwing refuses it, and nothing has changed.
    func carryOut(_ order: Order, _ descriptors: [SharedDescriptor], _ sequence: UInt32) throws(VMMError) -> Report? {
        switch order {
        case .lend(let entries, let total): try lend(entries, descriptors, total: total)
        case .start(let specification): try start(specification)
        case .exportBlueprint(let versions): try exportBlueprint(versions)
        case .prepare(let blueprint): try prepare(blueprint, sequence)
        case .settle(let hold): try settle(within: hold)
        case .save(let freeze): try save(freeze: freeze)
        case .load(let length, let digest): try load(length: length, digest: digest)
        case .practise(let cpu): try practise(on: cpu)
        case .takeOver(let patience): try takeOver(within: patience)
        case .grant: try grant()
        case .resume: try resume()
        case .takeAddresses: try takeAddresses()
        case .pause: try pause()
        case .unpause: try unpause()
        case .health: health()
        case .locate: .location(phase)
        case .requestPowerOff: try requestPowerOff()
        case .fingerprint: .fingerprint(try current().fingerprint.bytes)
        case .retire: nil
        }
    }

    /// The machine, or a refusal.
    func current() throws(VMMError) -> Machine {
        guard let machine else { throw VMMError("there is no machine here yet") }
        return machine
    }

    func require(_ phases: WorkerPhase..., for what: String) throws(VMMError) {
        if !phases.contains(phase) { throw VMMError("cannot \(what): the worker is \(phase)") }
    }

    private func lend(_ entries: [ManifestEntry], _ descriptors: [SharedDescriptor], total: UInt32) throws(VMMError) -> Report {
        try failpoints.reached(.lend)
        try leases.add(entries, descriptors)
        if entries.contains(where: { $0.kind == .checkpoint }) { checkpoint = nil }  // mapped anew when it is needed
        return .lent(held: min(total, UInt32(leases.count)))
    }

    private func start(_ specification: StartSpecification) throws(VMMError) -> Report {
        try require(.waiting, for: "power a machine on")
        let lent = try leases.resources()
        let commitment = Commitment(try leases.commitWord(), generation: generation)
        let machine = try MachineBuilder(lent: lent, failpoints: failpoints).build(specification)
        try machine.startThreads()
        _ = try rehearse(machine)
        try machine.boot(lent, commandLine: specification.commandLine)
        guard commitment.powerOn() else { throw VMMError("the commit word says \(commitment.said): somebody else runs this machine") }
        adopt(machine, commitment)
        let granted = SystemClock.monotonic()
        let firstRun = machine.run()
        phase = .running
        return .running(granted: granted, firstRun: firstRun)
    }

    private func adopt(_ machine: Machine, _ commitment: Commitment) {
        self.machine = machine
        self.commitment = commitment
    }

    private func exportBlueprint(_ promised: [SectionVersion]) throws(VMMError) -> Report {
        let machine = try current()
        try failpoints.reached(.preflight)
        versions = try PromisedVersions(promised, image: image)
        var blueprint = machine.blueprint
        blueprint.placements = machine.devices.functions.placements
        blueprint.messages = promised.contains(.blueprintWithMessages) ? machine.devices.functions.messages : []
        return .blueprint(blueprint.encode())
    }

    private func prepare(_ bytes: [UInt8], _ sequence: UInt32) throws(VMMError) -> Report? {
        try require(.waiting, for: "prepare")
        let blueprint = try doing("the blueprint") { () throws(WireError) in try Blueprint(bytes) }
        let builder = MachineBuilder(lent: try leases.resources(), failpoints: failpoints)
        preparation = try Preparation(builder, blueprint)
        preparedSequence = sequence
        phase = .preparing
        return nil
    }

    /// The machine is built, or is not going to be.
    func finishPreparing(_ preparation: Preparation) {
        self.preparation = nil
        do {
            let built = try preparation.get()
            try built.machine.startThreads()
            rehearsal = try rehearse(built.machine)
            checkpoint = try leases.checkpoint(writable: false, vcpus: built.machine.blueprint.vcpus)
            adopt(built.machine, Commitment(try leases.commitWord(), generation: generation))
            try failpoints.reached(.prepared)
            built.machine.setUrgent(true)
            phase = .prepared
            reply(.prepared(populated: UInt64(built.populated)), to: preparedSequence)
        } catch {
            phase = .failed
            reply(.refused(reason: error.description), to: preparedSequence)
        }
    }

    /// Saves and restores the machine as it is before it has ever run: that this works is known now, and what it touches for the first
    /// time is touched while nobody waits.
    private func rehearse(_ machine: Machine) throws(VMMError) -> [UInt8] {
        let room = SavingRoom(vcpus: machine.blueprint.vcpus)
        let bytes = try Saving.rehearse(machine, in: room, image: image, generation: generation)
        try machine.practiseLoading(bytes, writtenBy: generation, understanding: understood)
        self.room = room
        // A copy, in memory of its own: the room's is written to again, and so is this.
        var copy: [UInt8] = []
        copy.reserveCapacity(bytes.count + (16 << 10))
        copy += bytes
        return copy
    }

    private func pause() throws(VMMError) -> Report {
        if phase == .paused { return .done }
        try require(.running, for: "pause")
        // No budget to keep here: on a busy host a vCPU may wait long for a CPU on which to leave the guest.
        try current().park(timeout: .seconds(1)).keepParked()
        isPaused = true
        pausedAt = SystemClock.monotonic()
        phase = .paused
        return .done
    }

    private func unpause() throws(VMMError) -> Report {
        if phase == .running { return .done }
        try require(.paused, for: "end the pause")
        let machine = try current()
        // Only then: it blinds the guest's stall detectors, which a short stop does not set off.
        if let pausedAt, SystemClock.monotonic() - pausedAt > 1_000_000_000 {
            for thread in machine.threads { thread.beforeRunning { vcpu in try? vcpu.announcePause() } }
        }
        pausedAt = nil
        machine.run()
        isPaused = false
        phase = .running
        return .done
    }

    /// Devices that are passed through reach RAM by what an earlier worker has mapped, whatever comes of this.
    private func takeAddresses() throws(VMMError) -> Report {
        try require(.running, .paused, for: "take addresses")
        let machine = try current()
        machine.setUrgent(false)  // the handover's first order without hurry
        try failpoints.reached(.takeAddresses)
        try machine.takeAddresses()
        return .done
    }

    private func health() -> Report {
        guard let machine else { return .health(alive: 0, vcpus: 0, problem: nil) }
        var problem = failpoints.health()
        if case .failure(let reason) = machine.guestEnding { problem = reason }
        let alive = machine.countAlive(within: .milliseconds(100))
        return .health(alive: UInt32(alive), vcpus: UInt32(machine.blueprint.vcpus), problem: problem)
    }

    private func requestPowerOff() throws(VMMError) -> Report {
        try require(.running, .settled, for: "ask the guest to power off")
        try current().devices.requestPowerOff()
        return .done
    }
}
