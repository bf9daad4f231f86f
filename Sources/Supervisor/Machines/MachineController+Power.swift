internal import Channel
internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import Synchronization

extension MachineController {
    /// Starts the first worker and waits until the guest runs.
    func powerOn(_ image: WorkerImage) throws(ControlError) {
        do {
            worker = try coldStart(image, generation: nextGeneration())
        } catch {
            state = .stopped
            publish()
            throw error
        }
        state = .running
        publish()
        host.events.append(.started, machine: spec.name, generation: worker.map { Int($0.generation) }, detail: image.description.version)
    }

    private func nextGeneration() -> UInt32 {
        (CommitWord(rawValue: resources.commitWord.load())?.generation ?? 0) + 1
    }

    private func coldStart(_ image: WorkerImage, generation: UInt32) throws(ControlError) -> Worker {
        let launched: Worker
        do { launched = try WorkerLauncher(host: host, spec: spec, slot: slot).launch(image, generation: generation) } catch {
            throw .failed(reason: "\(spec.name): the worker cannot be started: \(error)")
        }
        noteSpawned(launched)
        let answer = host.configuration.answerDeadline
        let prepare = host.configuration.prepareDeadline + .seconds(spec.memory.sizeBytes >> 28)  // first touch of memory is slow
        do {
            guard case .hello(let identity) = try launched.report(to: 0, within: answer), identity.version == image.description.version,
                identity.protocolVersion == Envelope.protocolVersion
            else { throw WorkerFailure.misbehaved("it does not say hello as its image describes it") }
            try launched.lend(resources.lease(checkpoint: nil) + resources.bootLease(), within: answer)
            // The word names the generation that may run, before it does.
            resources.commitWord.store(CommitWord(.running, generation).rawValue)
            guard case .running = try launched.order(.start(startSpecification), within: prepare) else {
                throw WorkerFailure.misbehaved("it does not say that it runs")
            }
        } catch {
            launched.kill(within: .seconds(10))
            WorkerLauncher(host: host, spec: spec, slot: slot).forget(generation: generation)
            throw .failed(reason: "\(spec.name) does not start: \(error) (worker log: \(host.workerLog(of: spec.name)))")
        }
        note(.worker, launched)
        return launched
    }

    private var startSpecification: StartSpecification {
        let bytes = stride(from: 0, to: 32, by: 2).map { offset -> UInt8 in
            let start = machineID.index(machineID.startIndex, offsetBy: offset)
            return UInt8(machineID[start...].prefix(2), radix: 16) ?? 0
        }
        return StartSpecification(
            machineID: bytes, name: spec.name, vcpus: UInt32(spec.vcpus), memory: UInt64(spec.memory.sizeBytes),
            commandLine: spec.boot.cmdline ?? "",
            pageSize: spec.memory.pages == .transparentHuge ? 2 << 20 : UInt64(spec.memory.pages.sizeBytes), prefault: spec.memory.prefault,
            affinities: spec.affinityMasks, devices: resources.devices.specifications(of: spec))
    }

    /// The worker is gone with the guest's vCPU state: the machine's crash policy decides.
    func workerLost(_ reason: String) {
        let lost = worker
        // A new image that dies while it is being watched is not started again.
        let image = soak != nil ? previousImage ?? lost?.image : lost?.image
        host.events.append(.crashed, machine: spec.name, generation: lost.map { Int($0.generation) }, detail: reason)
        finishSoak(.failure(.reverted(machine: spec.name, reason: "\(reason); crash policy: \(spec.onCrash.rawValue)")))
        switch spec.onCrash {
        case .reset: restart(with: image, why: reason)
        case .stop: endMachine(.crashed, reason)
        }
    }

    /// Replaces the worker by a cold start: fresh memory, same machine.
    func restart(with image: WorkerImage?, why: String) {
        note(JournalRecord(.restarting, at: Int(SystemClock.wall()), detail: why))
        finishSoak(nil)
        let past = worker
        worker = nil
        if let past { retire(past) }
        retiredImage = image
        state = .starting
        remark = "restarted: \(why)"
        publish()
        do {
            guard let image else { throw ControlError.failed(reason: "no image is known") }
            guard waitForRetired(within: .seconds(30)) else {
                state = .fencePending
                host.events.append(.fencePending, machine: spec.name, detail: "a past worker does not end; nothing new is started")
                return publish()
            }
            quietenDevices()  // first: memory that devices still reach stays with them when it is discarded
            try resources.memory.descriptor.discardContent()
            worker = try coldStart(image, generation: nextGeneration())
            trail.stepBack(to: image)
            poweredOnAt.store(SystemClock.monotonic(), ordering: .relaxed)
            state = .running
            host.events.append(.reset, machine: spec.name, generation: worker.map { Int($0.generation) }, detail: why)
        } catch {
            endMachine(.crashed, "\(why); then: \(error)")
        }
        publish()
    }

    func powerOff(_ reason: String) { endMachine(.stopped, reason) }

    /// Ends the machine for good: worker gone, custody given back. The journal stays.
    func endMachine(_ end: MachineState, _ reason: String) {
        if hasEnded { return }
        // Written first: a supervisor that starts in the middle of this ends the machine too, and does not revive it.
        note(JournalRecord(.ended, at: Int(SystemClock.wall()), detail: reason))
        if let past = worker { retire(past) }
        publish()
        worker = nil
        state = end
        remark = reason
        finishSoak(.failure(.failed(reason: "\(spec.name) ended: \(reason)")))
        if waitForRetired(within: .seconds(30)) {
            quietenDevices()
            try? resources.memory.descriptor.discardContent()
        }
        host.releaseCustody(of: spec.name)
        host.events.append(end == .crashed ? .crashed : .stopped, machine: spec.name, detail: reason)
        publish()
        close()
        onEnd(snapshot)
    }

    /// Brings passed-through devices to rest; no worker is there any more.
    private func quietenDevices() {
        for remark in resources.devices.passthrough.quieten() { host.events.append(.warning, machine: spec.name, detail: remark) }
    }

    // MARK: Past workers

    /// Kills a worker and leaves its end to be seen later: page tables and the VM are torn down in the background.
    func retire(_ past: Worker) {
        try? past.process.send(.kill)
        retiring.append(past)
    }

    func reapRetired() {
        retiring.removeAll { past in
            guard past.ended != nil else { return false }
            WorkerLauncher(host: host, spec: spec, slot: slot).forget(generation: past.generation)
            return true
        }
    }

    /// Whether every past worker is certainly gone.
    func waitForRetired(within limit: Duration) -> Bool {
        let deadline = SystemClock.monotonic() + limit.nanoseconds
        for past in retiring {
            let left = max(0, deadline - SystemClock.monotonic())
            _ = past.process.waitForEnd(timeout: .nanoseconds(left))
        }
        reapRetired()
        return retiring.isEmpty
    }

    // MARK: Operator's orders

    func pause() throws(ControlError) {
        guard state == .running || state == .reverted else {
            throw .refused(machine: spec.name, reasons: ["it is \(state.rawValue), not running"])
        }
        try orderWorker(.pause, expecting: .done)
        state = .paused
        note(JournalRecord(.paused, at: Int(SystemClock.wall())))
        host.events.append(.paused, machine: spec.name)
    }

    func resume() throws(ControlError) {
        guard state == .paused else { throw .refused(machine: spec.name, reasons: ["it is \(state.rawValue), not paused"]) }
        try orderWorker(.unpause, expecting: .done)
        state = .running
        note(JournalRecord(.resumed, at: Int(SystemClock.wall())))
        host.events.append(.resumed, machine: spec.name)
    }

    /// Asks the guest to switch itself off and waits for that; `force` does not ask.
    func stop(force: Bool, within limit: Duration = .seconds(30)) throws(ControlError) {
        if force { return endMachine(.stopped, "stopped by force") }
        guard state != .paused else {
            throw .refused(machine: spec.name, reasons: ["it is paused and cannot switch itself off", "→ resume it, or stop it with --force"])
        }
        try orderWorker(.requestPowerOff, expecting: .done)
        let deadline = SystemClock.monotonic() + limit.nanoseconds
        while let worker, worker.ended == nil {
            let left = deadline - SystemClock.monotonic()
            if left <= 0 {
                throw .failed(reason: "\(spec.name) has not switched itself off within \(limit.milliseconds / 1000) s; stop --force ends it")
            }
            _ = try? Poll.one(worker.channel.number, timeout: .nanoseconds(left))
            guard let reports = try? worker.collectUnsolicited() else { break }
            if reports.contains(.poweredOff) || reports.contains(.resetRequested) { break }
        }
        endMachine(.stopped, "switched off on request")
    }

    private func orderWorker(_ order: Order, expecting: Report) throws(ControlError) {
        guard let worker else { throw .refused(machine: spec.name, reasons: ["it has no worker"]) }
        do {
            let report = try worker.order(order, within: host.configuration.answerDeadline)
            if report != expecting { throw WorkerFailure.misbehaved("it answered with report \(report.kind)") }
        } catch {
            throw .failed(reason: "\(spec.name): \(error)")
        }
    }
}
