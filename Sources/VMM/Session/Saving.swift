internal import Checkpoint
internal import Handover
internal import LinuxSystem
internal import Synchronization

/// What the vCPUs' threads do as they stop for a handover: each saves its vCPU, the last one writes the checkpoint and freezes the machine.
final class Saving: Sendable {
    private struct Done {
        var stopped: Int64 = 0
        var saved: Int64 = 0
        var length = 0
    }

    private let machine: Machine
    private let room: SavingRoom
    private let checkpoint: SharedMapping
    private let commitment: Commitment
    private let failpoints: Failpoints
    private let image: WorkerImage
    private let versions: PromisedVersions
    private let isPaused: Bool
    private let end: Int64
    private let done = Mutex(Done())

    /// `end`: CLOCK_MONOTONIC from which on it is too late.
    init(_ machine: Machine, of session: WorkerSession, in room: SavingRoom, to checkpoint: SharedMapping, _ commitment: Commitment, end: Int64) {
        self.machine = machine
        self.room = room
        self.checkpoint = checkpoint
        self.commitment = commitment
        failpoints = session.failpoints
        image = session.image
        versions = session.versions
        isPaused = session.isPaused
        self.end = end
    }

    /// How the machine is to be stopped.
    var stopping: Machine.Stopping {
        Machine.Stopping(
            beginning: { [self] thread, index, isEarly throws(VMMError) in try machine.beginSaving(thread, index, into: room, isEarly: isEarly) },
            whenAllHaveStopped: { [self] () throws(VMMError) in
                try machine.devices.quiesce(within: .nanoseconds(max(0, end - SystemClock.monotonic())))
                machine.devices.stopInterrupts()
                done.withLock { $0.stopped = SystemClock.monotonic() }
                try failpoints.reached(.save)
            },
            onEach: { [self] thread, index throws(VMMError) in try machine.save(thread, index, into: room, versions: versions) },
            whenAllAreDone: { [self] () throws(VMMError) in try write() })
    }

    /// The same on a machine that has never run, without touching its devices or entering a vCPU: on the threads that will do it, whose stacks
    /// and memory are then there. Returns the checkpoint.
    static func rehearse(_ machine: Machine, in room: SavingRoom, image: WorkerImage, generation: UInt32) throws(VMMError) -> [UInt8] {
        try machine.rehearse(rehearsing(.rehearsal, machine, in: room, image, PromisedVersions(newestOf: image), generation) { room.written = $0 })
        defer { room.written = [] }  // the room's memory is its own again
        return room.written
    }

    /// The same on a machine that runs, and runs on: so soon before the stop that all it takes is still in the processors' caches then. Returns
    /// the CPU that the first vCPU is on, if it came in time, and the checkpoint, if all did.
    static func practise(
        _ machine: Machine, in room: SavingRoom, image: WorkerImage, versions: PromisedVersions, generation: UInt32
    ) throws(VMMError) -> (cpu: UInt32?, checkpoint: [UInt8]?) {
        let cpu = FirstCPU()
        let stopping = rehearsing(.practice, machine, in: room, image, versions, generation, onFirst: { cpu.note() }) { room.written = $0 }
        guard try machine.practise(stopping, within: .milliseconds(20)) else { return (cpu.value, nil) }
        defer { room.written = [] }  // the room's memory is its own again
        return (cpu.value, room.written)
    }

    private static func rehearsing(
        _ purpose: Machine.SavingPurpose, _ machine: Machine, in room: SavingRoom, _ image: WorkerImage, _ versions: PromisedVersions,
        _ generation: UInt32, onFirst: @escaping @Sendable () -> Void = {}, then take: @escaping @Sendable ([UInt8]) -> Void
    ) -> Machine.Stopping {
        Machine.Stopping(
            beginning: { thread, index, isEarly throws(VMMError) in
                if index == 0 { onFirst() }
                return try machine.beginSaving(thread, index, into: room, isEarly: isEarly, for: purpose)
            },
            whenAllHaveStopped: {},
            onEach: { thread, index throws(VMMError) in
                try machine.save(thread, index, into: room, versions: versions, for: purpose)
            },
            whenAllAreDone: { () throws(VMMError) in
                take(try machine.collect(from: room, writer: image.version, generation: generation, versions: versions, isPaused: false))
                return false
            })
    }

    /// Returns whether the incoming worker has been woken.
    private func write() throws(VMMError) -> Bool {
        let bytes = try machine.collect(
            from: room, writer: image.version, generation: commitment.generation, versions: versions, isPaused: isPaused)
        if bytes.count > checkpoint.length { throw VMMError("the checkpoint has \(bytes.count) bytes, its memory \(checkpoint.length)") }
        checkpoint.copyIn(bytes.span, at: 0)
        let saved = SystemClock.monotonic()  // what comes next may give this CPU to the incoming worker
        if saved >= end { throw VMMError("stopping and saving took longer than the blackout budget") }
        done.withLock { ($0.saved, $0.length) = (saved, bytes.count) }
        guard let isAwaited = commitment.freeze() else {
            throw VMMError("the commit word says \(commitment.said), not running(\(commitment.generation))")
        }
        return isAwaited
    }

    /// What the supervisor is told when it is done.
    func report(began: Int64) -> Report {
        let done = done.withLock { $0 }
        let digest = CheckpointDigest.of(checkpoint.copyOut(at: 0, count: min(CheckpointFormat.headerLength, done.length)))
        return .saved(length: UInt64(done.length), digest: digest, parkBegan: began, parked: done.stopped, saved: done.saved)
    }
}

/// On which CPU the first vCPU's thread is, as it says.
private final class FirstCPU: Sendable {
    private let cpu = Mutex<UInt32?>(nil)

    var value: UInt32? { cpu.withLock { $0 } }

    func note() { cpu.withLock { $0 = SystemThread.currentCPU } }
}
