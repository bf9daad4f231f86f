internal import Channel
internal import Checkpoint
internal import Handover
internal import LinuxSystem
internal import SystemPackage
internal import Wire

/// The worker's end of a session: takes orders one at a time, answers each once, and ends an overdue freeze by itself.
///
/// Everything here happens on the main thread, which waits for vCPUs' threads where those save (``Saving``) or take over (``Loading``); from *settle* to
/// *running* nothing else is waited for.
final class WorkerSession {
    let image: WorkerImage
    /// The image's sections, as reading a checkpoint wants them.
    let understood: [Checkpoint.SectionRange]
    let failpoints: Failpoints
    let channel: SupervisorChannel
    var phase = WorkerPhase.waiting
    var leases = Leases()
    let generation: UInt32
    var commitment: Commitment?
    var machine: Machine?
    var preparation: Preparation?
    var preparedSequence: UInt32 = 0
    var versions: PromisedVersions
    var room: SavingRoom?
    var checkpoint: SharedMapping?
    /// From the order to load, or to take over, until the guest runs here.
    var loading: Loading?
    /// A checkpoint of the machine as it was built, until one is to be loaded.
    var rehearsal: [UInt8]?
    var isPaused = false
    /// CLOCK_MONOTONIC when an operator paused the machine here.
    var pausedAt: Int64?
    var loadedReport: Report?
    /// CLOCK_MONOTONIC when the freeze ends by itself.
    var freezeEnd: Int64?
    /// CLOCK_MONOTONIC when devices that were settled for a handover go on by themselves.
    var settleEnd: Int64?
    /// CLOCK_MONOTONIC when the commit word was first seen to name this loaded worker, with no grant yet.
    private var committedSince: Int64?
    var runningReport: Report?
    /// The answer to the last *settle*.
    var settledReport: Report?
    private var isEndingReported = false
    private var lastAnswer: (sequence: UInt32, report: Report)?
    private var hasSupervisor = true

    init(_ channel: SupervisorChannel, image: WorkerImage, generation: UInt32, failpoints: Failpoints) {
        self.generation = generation
        self.channel = channel
        self.image = image
        understood = image.sections.map { Checkpoint.SectionRange($0.name, writes: $0.writes, reads: $0.reads) }
        self.failpoints = failpoints
        versions = PromisedVersions(newestOf: image)
    }

    /// Says hello and serves until told to retire, or until the supervisor is gone and there is no guest to keep running.
    func serve() {
        send(.hello(image.identity(pid: SystemThread.currentID)), sequence: 0)
        var poll = Poll()
        while hasSupervisor || phase.keepsGuest || isCommitted {
            poll.removeAll()
            if hasSupervisor { poll.add(channel.number) }
            if let machine, mayReportEnding { poll.add(machine.event.descriptor.number) }
            if let preparation { poll.add(preparation.done.descriptor.number) }
            guard (try? poll.wait(timeout: untilSomethingIsDue)) != nil else { return }
            endOverdueFreeze()
            endOverdueSettling()
            runIfCommittedAndForgotten()
            if let preparation, preparation.isDone { finishPreparing(preparation) }
            reportEnding()
            if hasSupervisor, !takeOrder() { return }
        }
    }

    /// `false` ends the session.
    private func takeOrder() -> Bool {
        do {
            guard let received = try channel.receiveWaiting() else { return true }
            let envelope = received.message.envelope
            if case .retire = received.message.body { return false }
            if let lastAnswer, lastAnswer.sequence == envelope.sequence {
                send(lastAnswer.report, sequence: envelope.sequence)
                return true
            }
            if let report = answer(received, envelope) { reply(report, to: envelope.sequence) }
        } catch .closed {
            hasSupervisor = false
        } catch {
            writeToStandardError("baton-vmm: \(error)")
        }
        return true
    }

    private func answer(_ received: Received<Order>, _ envelope: Envelope) -> Report? {
        if envelope.generation != generation {
            return .refused(reason: "the order is for generation \(envelope.generation), this is generation \(generation)")
        }
        do {
            return try carryOut(received.message.body, received.descriptors, envelope.sequence)
        } catch {
            return .refused(reason: error.description)
        }
    }

    func reply(_ report: Report, to sequence: UInt32) {
        lastAnswer = (sequence, report)
        send(report, sequence: sequence)
    }

    func send(_ report: Report, sequence: UInt32) {
        do { try channel.send(report, generation: failpoints.generation(generation), sequence: sequence) } catch {
            if error == .closed { hasSupervisor = false }
        }
    }

    private var untilSomethingIsDue: Duration? {
        let looks = phase == .loaded ? SystemClock.monotonic() + Self.grantPatience / 4 : nil
        return [freezeEnd, settleEnd, looks].compactMap { $0 }.min().map { .nanoseconds(max(0, $0 - SystemClock.monotonic())) }
    }

    /// A grant follows commit within microseconds. Where it is missing for so long, the supervisor is dead or stopped.
    private static let grantPatience: Int64 = 250_000_000

    var isCommitted: Bool { phase == .loaded && commitment?.current == CommitWord(.committed, generation) }

    /// The word says who runs; nobody needs the supervisor to be alive to find out.
    private func runIfCommittedAndForgotten() {
        guard isCommitted else {
            committedSince = nil
            return
        }
        let now = SystemClock.monotonic()
        let since = committedSince ?? now
        committedSince = since
        guard !hasSupervisor || now - since >= Self.grantPatience, let report = try? grant() else { return }
        send(report, sequence: 0)
    }

    /// Nobody goes on with the handover: what was settled for it runs again.
    private func endOverdueSettling() {
        guard let end = settleEnd, SystemClock.monotonic() >= end else { return }
        settleEnd = nil
        if phase == .settled, (try? resume()) != nil { send(.resumed(overdue: true), sequence: 0) }
    }

    /// Whoever else is dead: a freeze ends at its time, unless somebody has committed.
    private func endOverdueFreeze() {
        guard let end = freezeEnd, SystemClock.monotonic() >= end else { return }
        if thaw() { send(.resumed(overdue: true), sequence: 0) }
    }

    private var mayReportEnding: Bool { (phase == .running || phase == .paused) && !isEndingReported }

    /// Tells the supervisor that the guest has ended, but not while a handover carries that as state.
    func reportEnding() {
        guard let machine, mayReportEnding, let ending = machine.guestEnding else { return }
        isEndingReported = true
        machine.event.take()
        if let parked = try? machine.park(timeout: .seconds(1)) { parked.keepParked() }
        switch ending {
        case .powerOff:
            phase = .stopped
            send(.poweredOff, sequence: 0)
        case .reset:
            phase = .stopped
            send(.resetRequested, sequence: 0)
        case .failure(let reason):
            phase = .failed
            send(.failed(reason: reason), sequence: 0)
        }
    }
}

extension WorkerPhase {
    /// Whether a guest depends on this worker even if nobody supervises it.
    fileprivate var keepsGuest: Bool {
        switch self {
        case .running, .paused, .settled, .frozen: true
        case .waiting, .preparing, .prepared, .loading, .loaded, .stopped, .failed: false
        }
    }
}
