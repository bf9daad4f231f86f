internal import Checkpoint
internal import Handover
internal import LinuxSystem
internal import Synchronization

/// What a prepared worker does with a checkpoint, on the first vCPU's thread, which runs the guest next: step by step as ordered, or taking over.
final class Loading: Sendable {
    /// All times are CLOCK_MONOTONIC nanoseconds.
    struct Loaded: Sendable {
        let began: Int64
        let loaded: Int64
        let isPaused: Bool
    }

    /// How far a worker came that was to take over.
    enum Outcome: Sendable {
        /// Nobody froze; the machine is as it was.
        case untouched(VMMError)
        /// It may be half restored.
        case notLoaded(VMMError)
        /// Loaded, but not to run: somebody else has won the word, or a failpoint says so.
        case notWon(Loaded, VMMError)
        case tookOver(Loaded, committed: Int64)

        var isTakenOver: Bool { if case .tookOver = self { true } else { false } }
    }

    private let machine: Machine
    private let checkpoint: SharedMapping
    private let commitment: Commitment
    private let failpoints: Failpoints
    private let understood: [Checkpoint.SectionRange]
    /// Memory for the private copy.
    private let room: Mutex<[UInt8]>

    /// `room`: the copy of the checkpoint goes where these bytes are. What was used a moment ago need not be asked of the kernel, page by page, while
    /// the guest stands.
    init(
        into machine: Machine, of session: WorkerSession, from checkpoint: SharedMapping, _ commitment: Commitment, room: consuming sending [UInt8]
    ) {
        self.machine = machine
        self.checkpoint = checkpoint
        self.commitment = commitment
        failpoints = session.failpoints
        understood = session.understood
        self.room = Mutex(room)
    }

    /// Copies, verifies and decodes the checkpoint and puts it into the machine that was built. Nothing shared is touched. The machine is of no use
    /// any more if that fails: it may be half restored.
    ///
    /// - Parameters:
    ///   - length: in bytes; 0 for what the checkpoint's own header says.
    ///   - digest: as it was announced; 0 if it was not.
    func load(length: UInt64 = 0, digest: UInt32 = 0) throws(VMMError) -> Loaded {
        let began = SystemClock.monotonic()
        let length = length == 0 ? try announcedLength() : length
        if length > checkpoint.length { throw VMMError("a checkpoint of \(length) bytes does not fit its memory") }
        try failpoints.reached(.load)
        let decoded = try machine.restore { () throws(VMMError) in
            let bytes = room.withLock { room in
                checkpoint.copyOut(at: 0, count: Int(length), into: &room)
                return room
            }
            if digest != 0, CheckpointDigest.of(bytes) != digest { throw VMMError("the checkpoint is not the one that was announced") }
            return try doing("checkpoint") { () throws(CheckpointError) in
                try DecodedCheckpoint(bytes, for: machine, writtenBy: try writer(of: bytes), understanding: understood)
            }
        }
        try failpoints.reached(.loaded)
        return Loaded(began: began, loaded: SystemClock.monotonic(), isPaused: decoded.machine.isPaused)
    }

    /// Waits for the freeze, loads, commits and has the vCPUs run; whoever calls this waits for that by ``Machine/awaitRunning()``. The thread that
    /// does all of it is the first vCPU's: between the outgoing worker's last step and the guest nobody else has to be woken.
    func takeOver(until deadline: Int64) throws(VMMError) -> Outcome {
        try machine.onFirstVCPU(isPatient: \.isTakenOver) { [self] in
            guard let writer = commitment.waitForFreeze(until: deadline) else {
                return .untouched(VMMError("there is nothing to take over: nobody has frozen"))
            }
            let loaded: Loaded
            do throws(VMMError) { loaded = try load() } catch { return .notLoaded(error) }
            guard commitment.commit(from: writer) else {
                return .notWon(loaded, VMMError("it is too late: the commit word says \(commitment.said)"))
            }
            let committed = SystemClock.monotonic()
            do throws(VMMError) { try win() } catch { return .notWon(loaded, error) }
            if !loaded.isPaused { machine.release() }
            return .tookOver(loaded, committed: committed)
        }
    }

    /// The last thing before the guest runs.
    func win() throws(VMMError) {
        try failpoints.reached(.grant)
        guard commitment.takeOver() else {
            throw VMMError("the commit word says \(commitment.said), not committed(\(commitment.generation))")
        }
    }

    private func announcedLength() throws(VMMError) -> UInt64 {
        let header = checkpoint.copyOut(at: 0, count: min(CheckpointFormat.headerLength, checkpoint.length))
        return try doing("checkpoint") { () throws(CheckpointError) in UInt64(try CheckpointHeader(judging: header).totalLength) }
    }

    /// The generation that must have written the checkpoint: the frozen one. When one was committed already and died before it ran,
    /// the checkpoint is an earlier generation's.
    private func writer(of bytes: [UInt8]) throws(CheckpointError) -> UInt32 {
        if let current = commitment.current, current.state == .frozen { return current.generation }
        let written = try CheckpointHeader(judging: bytes).generation
        if written >= UInt64(commitment.generation) { throw .generation(expected: UInt64(commitment.generation) - 1, found: written) }
        return UInt32(written)
    }
}

/// What a worker announces its checkpoint by.
enum CheckpointDigest {
    /// The digest in the header, which covers every section's checksum; 0 for what is no checkpoint.
    static func of(_ bytes: [UInt8]) -> UInt32 { (try? CheckpointHeader(judging: bytes))?.digest ?? 0 }
}
