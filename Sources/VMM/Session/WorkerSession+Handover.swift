internal import Checkpoint
internal import Handover
internal import LinuxSystem
internal import SystemPackage

/// From *settle* to *running*, on the outgoing and on the incoming side.
extension WorkerSession {
    /// `save` follows `settle` at once, or the handover has been forgotten. No longer than the ticks that the PIT makes up for.
    private static let settlePatience: Int64 = 1_000_000_000

    /// What stopping or loading takes is in the caches, when it comes, of the processor that the guest gives up.
    func practise(on cpu: UInt32?) throws(VMMError) -> Report {
        try require(.running, .paused, .settled, .prepared, for: "practise")
        let machine = try current()
        try failpoints.reached(.practise)
        guard phase == .prepared else {
            guard let room else { throw VMMError("there is nothing to save to") }
            let practised = try Saving.practise(machine, in: room, image: image, versions: versions, generation: generation)
            // Once settled, the incoming worker has practised already.
            if phase != .settled, let saved = practised.checkpoint, let memory = try? writableCheckpoint(for: machine) {
                GuestPractice.leave(saved, in: memory)
            }
            return .practised(cpu: practised.cpu)
        }
        let states = guestPractice(for: machine)
        let (rehearsal, generation, understood) = (rehearsal, generation, understood)
        try machine.onFirstVCPU { () throws(VMMError) in
            if let cpu { machine.threads.first?.stay(on: cpu) }
            if let rehearsal { try machine.practiseLoading(rehearsal, writtenBy: generation, understanding: understood) }
        }
        if rehearsal != nil { try machine.prepareEntries(states) }  // otherwise they may not be as new ones
        try machine.onFirstVCPU { () throws(VMMError) in try machine.anticipate(states) }
        machine.setUrgent(true)  // by what practice took
        return .practised(cpu: nil)
    }

    /// What the worker that the commit word names has left by its own practice, if it can be read.
    private func guestPractice(for machine: Machine) -> [VCPUState]? {
        guard let checkpoint, let running = commitment?.current?.generation else { return nil }
        let identity = CheckpointIdentity(machine: machine.blueprint.machineID, generation: UInt64(running))
        do throws(VMMError) {
            return try GuestPractice.take(from: checkpoint, of: identity, vcpus: machine.blueprint.vcpus, understanding: understood)
        } catch {
            writeToStandardError("baton-vmm: \(error)")
            return nil
        }
    }

    private func writableCheckpoint(for machine: Machine) throws(VMMError) -> SharedMapping {
        if let checkpoint { return checkpoint }
        let mapped = try leases.checkpoint(writable: true, vcpus: machine.blueprint.vcpus)
        checkpoint = mapped
        return mapped
    }

    func settle(within hold: UInt64) throws(VMMError) -> Report {
        if phase == .settled, let settledReport { return settledReport }
        try require(.running, .paused, for: "settle")
        let machine = try current()
        _ = try writableCheckpoint(for: machine)
        try failpoints.reached(.settle)
        let began = SystemClock.monotonic()
        do throws(VMMError) { try machine.devices.quiesce(within: .nanoseconds(Int64(clamping: hold))) } catch {
            if !isPaused { machine.devices.resume() }
            throw error
        }
        let drained = SystemClock.monotonic()
        machine.setUrgent(true)
        phase = .settled
        settleEnd = SystemClock.monotonic() + Self.settlePatience
        let report = Report.settled(began: began, drained: drained)
        settledReport = report
        return report
    }

    /// Stops the guest, writes the checkpoint, freezes. Until the commit word has been won, any failure lets the guest run on.
    func save(freeze: UInt64) throws(VMMError) -> Report {
        try require(.settled, for: "save")
        let machine = try current()
        guard let room, let checkpoint, let commitment else { throw VMMError("there is nothing to save to") }
        SystemClock.sleep(.microseconds(200))  // after practice the guest goes on: two short stops, not a long one
        let began = SystemClock.monotonic()
        let end = began.addingReportingOverflow(Int64(clamping: freeze)).partialValue
        try failpoints.reached(.park)
        let saving = Saving(machine, of: self, in: room, to: checkpoint, commitment, end: end)
        try machine.stop(timeout: .nanoseconds(Int64(clamping: freeze)), saving.stopping).keepParked()
        freezeEnd = end
        settleEnd = nil
        phase = .frozen
        machine.setPinned(false)
        try? failpoints.reached(.saved)
        return saving.report(began: began)
    }

    /// Abort: the guest runs on, if the commit word can still be won.
    func resume() throws(VMMError) -> Report {
        switch phase {
        case .running, .paused: return .resumed(overdue: false)
        case .settled:
            settleEnd = nil
            if !isPaused { try current().devices.resume() }
            try current().setUrgent(false)
            phase = isPaused ? .paused : .running
            return .resumed(overdue: false)
        case .frozen:
            if thaw() { return .resumed(overdue: false) }
            throw VMMError("it is too late: somebody has committed")
        case .waiting, .preparing, .prepared, .loading, .loaded, .stopped, .failed:
            throw VMMError("cannot resume: the worker is \(phase)")
        }
    }

    /// Ends the freeze by the commit word; `false` when that was lost, and with it the machine.
    func thaw() -> Bool {
        freezeEnd = nil
        guard let commitment, commitment.thaw() else {
            phase = .stopped
            return false
        }
        machine?.setPinned(true)
        if !isPaused { machine?.run() }
        machine?.setUrgent(false)
        phase = isPaused ? .paused : .running
        return true
    }

    func load(length: UInt64, digest: UInt32) throws(VMMError) -> Report {
        if let loadedReport { return loadedReport }
        try require(.prepared, for: "load")
        let loading = try startLoading()
        do throws(VMMError) {
            return note(try current().onFirstVCPU { () throws(VMMError) in try loading.load(length: length, digest: digest) })
        } catch {
            try noteFailedLoad()
            throw error
        }
    }

    /// Runs the guest. The commit word changes before the first KVM_RUN.
    func grant() throws(VMMError) -> Report {
        if let runningReport { return runningReport }
        try require(.loaded, for: "take the grant")
        guard let loading else { throw VMMError("nothing was loaded here") }
        let granted = SystemClock.monotonic()
        try loading.win()
        if !isPaused { try current().release() }
        return .running(granted: granted, firstRun: try awaitRunning(since: granted))
    }

    /// Loads, commits and runs without being told again: the outgoing worker's freeze wakes the first vCPU's thread, and the guest waits for no
    /// other process.
    func takeOver(within patience: UInt64) throws(VMMError) -> Report {
        try require(.prepared, for: "take over")
        let deadline = SystemClock.monotonic().addingReportingOverflow(Int64(clamping: patience)).partialValue
        let loading = try startLoading()
        SystemThread.setEagerness(.patient)  // the guest, when it runs, is not interrupted for the news
        defer { SystemThread.setEagerness(.ordinary) }
        switch try loading.takeOver(until: deadline) {
        case .untouched(let failure):
            phase = .prepared
            throw failure
        case .notLoaded(let failure):
            try noteFailedLoad()
            throw failure
        case .notWon(let loaded, let failure):
            _ = note(loaded)
            if !isCommitted { try current().setPinned(false) }  // it ends elsewhere than where the guest runs
            throw failure
        case .tookOver(let loaded, let committed):
            _ = note(loaded)
            let firstRun = try awaitRunning(since: committed)
            return .tookOver(began: loaded.began, loaded: loaded.loaded, committed: committed, firstRun: firstRun)
        }
    }

    private func startLoading() throws(VMMError) -> Loading {
        guard let commitment else { throw VMMError("there is no commit word here") }
        let checkpoint = if let mapped = self.checkpoint { mapped } else { try leases.checkpoint(writable: false, vcpus: 0) }
        let loading = Loading(into: try current(), of: self, from: checkpoint, commitment, room: rehearsal.take() ?? [])
        phase = .loading
        self.loading = loading
        return loading
    }

    private func note(_ loaded: Loading.Loaded) -> Report {
        phase = .loaded
        isPaused = loaded.isPaused
        let report = Report.loaded(began: loaded.began, loaded: loaded.loaded)
        loadedReport = report
        return report
    }

    /// Half restored: this worker is of no use any more.
    private func noteFailedLoad() throws(VMMError) {
        phase = .failed
        try current().setPinned(false)
    }

    /// The vCPUs have been let go. When the first of them entered the guest; `granted` where an operator has paused it.
    private func awaitRunning(since granted: Int64) throws(VMMError) -> Int64 {
        let machine = try current()
        let firstRun = isPaused ? granted : machine.awaitRunning()
        machine.threads.first?.goHome()
        phase = isPaused ? .paused : .running
        loading = nil
        checkpoint = nil  // was mapped for reading; the next settle maps it for writing
        try? failpoints.reached(.running)
        runningReport = .running(granted: granted, firstRun: firstRun)
        return firstRun
    }
}
