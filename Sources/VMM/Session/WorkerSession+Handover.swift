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
            return .practised(cpu: try Saving.practise(machine, in: room, image: image, versions: versions, generation: generation))
        }
        if let cpu {
            let before = SystemThread.stay(on: cpu)
            affinity = affinity ?? before  // told twice, it is on one CPU already
        }
        if let rehearsal { try practiseLoading(rehearsal, into: machine) }
        return .practised(cpu: nil)
    }

    func settle(within hold: UInt64) throws(VMMError) -> Report {
        if phase == .settled, let settledReport { return settledReport }
        try require(.running, .paused, for: "settle")
        let machine = try current()
        if checkpoint == nil { checkpoint = try leases.checkpoint(writable: true, vcpus: machine.blueprint.vcpus) }
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

    /// Copies, verifies and decodes the checkpoint and puts it into the machine that was built. Nothing shared is touched.
    func load(length: UInt64, digest: UInt32) throws(VMMError) -> Report {
        if phase == .loaded, let loadedReport { return loadedReport }
        try require(.prepared, for: "load")
        let machine = try current()
        let began = SystemClock.monotonic()
        let checkpoint = if let mapped = self.checkpoint { mapped } else { try leases.checkpoint(writable: false, vcpus: 0) }
        let length = length == 0 ? try announcedLength(checkpoint) : length
        if length > checkpoint.length { throw VMMError("a checkpoint of \(length) bytes does not fit its memory") }
        phase = .loading
        rehearsal = nil
        do throws(VMMError) {
            try failpoints.reached(.load)
            let bytes = checkpoint.copyOut(at: 0, count: Int(length))
            if digest != 0, CheckpointDigest.of(bytes) != digest { throw VMMError("the checkpoint is not the one that was announced") }
            let decoded = try doing("checkpoint") { () throws(CheckpointError) in
                try DecodedCheckpoint(bytes, for: machine, writtenBy: try writer(of: bytes), understanding: understood)
            }
            try machine.restore(decoded)
            isPaused = decoded.machine.isPaused
            try failpoints.reached(.loaded)
        } catch {
            phase = .failed  // half restored: this worker is of no use any more
            machine.setPinned(false)
            leaveGuestCPU()
            throw error
        }
        phase = .loaded
        let report = Report.loaded(began: began, loaded: SystemClock.monotonic())
        loadedReport = report
        return report
    }

    private func leaveGuestCPU() {
        if let affinity { try? SystemThread.setAffinity(affinity) }
        affinity = nil
    }

    /// Loads without being told again: the outgoing worker's freeze wakes this one, and the way through the supervisor is saved.
    func loadWhenFrozen(within patience: UInt64) throws(VMMError) -> Report {
        if phase == .loaded, let loadedReport { return loadedReport }
        try require(.prepared, for: "load")
        let deadline = SystemClock.monotonic().addingReportingOverflow(Int64(clamping: patience)).partialValue
        guard let commitment, commitment.waitForFreeze(until: deadline) else { throw VMMError("there is nothing to load: nobody has frozen") }
        return try load(length: 0, digest: 0)
    }

    /// What the checkpoint's own header says, for who was not told when it was written.
    private func announcedLength(_ checkpoint: SharedMapping) throws(VMMError) -> UInt64 {
        let header = checkpoint.copyOut(at: 0, count: min(CheckpointFormat.headerLength, checkpoint.length))
        return try doing("checkpoint") { () throws(CheckpointError) in UInt64(try CheckpointHeader(judging: header).totalLength) }
    }

    /// The generation that must have written the checkpoint: the frozen one. When one was committed already and died before it ran,
    /// the checkpoint is an earlier generation's.
    private func writer(of bytes: [UInt8]) throws(CheckpointError) -> UInt32 {
        if let current = commitment?.current, current.state == .frozen { return current.generation }
        let written = try CheckpointHeader(judging: bytes).generation
        if written >= UInt64(generation) { throw .generation(expected: UInt64(generation) - 1, found: written) }
        return UInt32(written)
    }

    /// Runs the guest. The commit word changes before the first KVM_RUN.
    func grant() throws(VMMError) -> Report {
        if let runningReport { return runningReport }
        try require(.loaded, for: "take the grant")
        let machine = try current()
        guard let commitment else { throw VMMError("there is no commit word here") }
        let granted = SystemClock.monotonic()
        try failpoints.reached(.grant)
        guard commitment.takeOver() else { throw VMMError("the commit word says \(commitment.said), not committed(\(generation))") }
        // From here on it is the guest's CPU: this thread hears of the first run on another one.
        leaveGuestCPU()
        let firstRun = isPaused ? granted : machine.run()
        phase = isPaused ? .paused : .running
        self.checkpoint = nil  // was mapped for reading; the next settle maps it for writing
        try? failpoints.reached(.running)
        let report = Report.running(granted: granted, firstRun: firstRun)
        runningReport = report
        return report
    }
}

/// What a worker announces its checkpoint by.
enum CheckpointDigest {
    /// The digest in the header, which covers every section's checksum; 0 for what is no checkpoint.
    static func of(_ bytes: [UInt8]) -> UInt32 { (try? CheckpointHeader(judging: bytes))?.digest ?? 0 }
}
