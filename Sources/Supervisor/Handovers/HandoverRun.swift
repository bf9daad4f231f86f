internal import Channel
internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import SystemPackage

/// How a handover ended, with whoever runs the machine now.
enum HandoverEnd {
    /// Nothing was touched.
    case refused([String])
    /// The outgoing worker runs on.
    case aborted(step: Handover.Step, reason: String)
    /// `worker` runs the machine. `note`: it is not the image that was asked for, and why.
    case committed(worker: Worker, note: String?)
    /// Nobody runs the machine: its vCPU state is gone.
    case lost(reason: String)
}

/// Something went wrong at a step, on one side.
struct Trouble: Error {
    enum Side { case outgoing, incoming, supervisor }
    let step: Handover.Step
    let side: Side
    let failure: WorkerFailure

    var reason: String {
        switch side {
        case .outgoing: "outgoing worker, \(step.rawValue): \(failure)"
        case .incoming: "incoming worker, \(step.rawValue): \(failure)"
        case .supervisor: "\(step.rawValue): \(failure)"
        }
    }
}

/// One handover in transfer mode, from preflight to running: the only code that orders two workers of one machine.
///
///     operator   batond             outgoing g            incoming g+1        commit word
///        │ upgrade │                    │                                     running(g)
///        │────────>│── exportBlueprint ─>│
///        │         │── spawn, lend, prepare ────────────────>│
///        │         │── practise ───────>│
///        │         │── practise ────────────────────────────>│
///        │         │── settle ─────────>│
///        │         │── save ───────────>│ stop, write                         frozen(g)
///        │         │── load ────────────────────────────────>│ verify, restore
///        │         │  commit                                                  committed(g+1)
///        │         │── grant ───────────────────────────────>│ run            running(g+1)
///        │         │── SIGSTOP ────────>│
///
/// Runs on the machine's own thread. Any ``Trouble`` goes to `resolve`, which looks at the commit word to see who can run.
final class HandoverRun {
    let host: Host
    let resources: MachineResources
    let spec: MachineSpec
    let slot: Int
    let outgoing: Worker
    let image: WorkerImage
    /// Readable when the operator asks for the end of this handover.
    let abort: CInt
    var times = StepTimes()
    var incoming: Worker?
    var blueprint: [UInt8] = []
    /// Of the machine as the outgoing worker shows it; every other must show the same. Empty in recovery: loading compares it too.
    var fingerprint: [UInt8] = []
    var checkpoint: (length: UInt64, digest: UInt32) = (0, 0)
    /// The report that the incoming worker gives when it has loaded by itself.
    private var expectedLoad: UInt32?
    /// That report, if it has come before it was its turn.
    private var heard: Result<Report, WorkerFailure>?
    /// Where this thread may run when it is not on the guest's CPU.
    private var ownAffinity: [UInt64]?
    var settled = false
    /// The operator's abort is honoured until then.
    var committed = false
    /// The memfd the checkpoint travels in, the same for every worker of this handover.
    var checkpointFile: SharedDescriptor?
    /// Incoming workers that failed and are to be reaped.
    private(set) var discarded: [Worker] = []
    private let launched: (Worker) -> Void
    private let progress: (Control.Step) -> Void

    /// `launched`: told of every worker that is started, before it is given anything.
    init(
        host: Host, resources: MachineResources, spec: MachineSpec, slot: Int, outgoing: Worker, image: WorkerImage, abort: CInt,
        launched: @escaping (Worker) -> Void, progress: @escaping (Control.Step) -> Void
    ) {
        self.host = host
        self.resources = resources
        self.spec = spec
        self.slot = slot
        self.outgoing = outgoing
        self.image = image
        self.abort = abort
        self.launched = launched
        self.progress = progress
    }

    var budget: Duration { .nanoseconds(spec.upgrade.blackoutBudgetNanoseconds) }
    private var answer: Duration { host.configuration.answerDeadline }

    func run() -> HandoverEnd {
        let agreement = SectionAgreement(
            outgoing: outgoing.image.sections, incoming: image.sections, outgoingVersion: outgoing.image.description.version,
            incomingVersion: image.description.version)
        var refusals = agreement.refusals
        if !image.description.models.contains("baton-1") {
            refusals.append("model baton-1: \(image.description.version) implements \(image.description.models.joined(separator: ", "))")
        }
        guard refusals.isEmpty else { return .refused(refusals) }
        do throws(Trouble) {
            try preflight(agreement)
            let worker = try prepare(generation: outgoing.generation + 1, image: image)
            guard host.admission.enter(within: answer) else {
                throw Trouble(step: .practise, side: .supervisor, failure: .failed("too many machines of this host are in blackout"))
            }
            defer { host.admission.leave() }
            defer { leaveGuestCPU() }
            let cpu = try practise(with: worker)
            try settle()
            try approach(cpu)
            try stopAndSave()
            try load(worker)
            try commit(to: worker)
            leaveGuestCPU()
            try grant(worker)
            fence()
            return .committed(worker: worker, note: nil)
        } catch {
            if committed { outgoing.stop() }
            return resolve(error)
        }
    }

    // MARK: While the guest runs

    private func preflight(_ agreement: SectionAgreement) throws(Trouble) {
        try step(.preflight, "formats agree (\(agreement.versions.map { "\($0.name) \($0.version)" }.joined(separator: ", ")))") {
            () throws(Trouble) in
            let report = try ask(outgoing, .exportBlueprint(versions: agreement.versions), .preflight, within: answer)
            guard case .blueprint(let bytes) = report else { throw unexpected(report, .preflight, .outgoing) }
            blueprint = bytes
            try depositBlueprint()
            fingerprint = try fingerprint(of: outgoing, .preflight)
        }
    }

    /// Starts a worker of `image` and has it build the machine beside the running one.
    func prepare(generation: UInt32, image: WorkerImage) throws(Trouble) -> Worker {
        // While the guest runs there is time; who waits for longer than a preparation may take does not wait for those that do not end.
        var hasPlace = false
        defer { if hasPlace { host.preparations.leave() } }
        let worker = try step(.spawn, nil) { () throws(Trouble) in
            if !committed { hasPlace = host.preparations.enter(within: host.configuration.prepareDeadline) }
            do { return try WorkerLauncher(host: host, spec: spec, slot: slot).launch(image, generation: generation) } catch {
                throw Trouble(step: .spawn, side: .supervisor, failure: .failed("\(error)"))
            }
        }
        incoming = worker
        launched(worker)
        try step(.hello, nil) { () throws(Trouble) in try greet(worker) }
        try step(.lend, nil) { () throws(Trouble) in
            let checkpointFile = try sharedCheckpoint()
            try lend(resources.lease(checkpoint: checkpointFile), to: worker)
        }
        let limit = host.configuration.prepareDeadline + .seconds(spec.memory.sizeBytes >> 30)
        times.begin(.map)
        times.begin(.prepared)
        tell(.prepared, .begin, nil)
        host.hook(.map)
        let report = try ask(worker, .prepare(blueprint: blueprint), .build, within: limit)
        guard case .prepared(let populated) = report else { throw unexpected(report, .build, .incoming) }
        if !fingerprint.isEmpty, try fingerprint(of: worker, .build) != fingerprint {
            throw Trouble(
                step: .build, side: .incoming,
                failure: .misbehaved("it would show the guest a different machine: the fingerprints of CPUID, MSRs, memory map and devices differ"))
        }
        times.end(.prepared)
        tell(.prepared, .end, "\((populated + (1 << 20) - 1) >> 20) MiB of guest memory populated (guest running)")
        host.hook(.prepared)
        return worker
    }

    /// What a worker's machine looks like to its guest, in a digest.
    private func fingerprint(of worker: Worker, _ step: Handover.Step) throws(Trouble) -> [UInt8] {
        let report = try ask(worker, .fingerprint, step, within: answer)
        guard case .fingerprint(let digest) = report else {
            throw unexpected(report, step, worker === outgoing ? .outgoing : .incoming)
        }
        return digest
    }

    private func greet(_ worker: Worker) throws(Trouble) {
        let report = try waitHello(worker)
        guard case .hello(let identity) = report else { throw unexpected(report, .hello, .incoming) }
        let described = worker.image.description
        if identity.version != described.version || identity.protocolVersion != Envelope.protocolVersion
            || identity.sections != worker.image.sections
        {
            throw Trouble(
                step: .hello, side: .incoming,
                failure: .misbehaved(
                    "it says it is \(identity.version) speaking protocol \(identity.protocolVersion), which is not what its image describes "
                        + "(\(described.version), protocol \(Envelope.protocolVersion))"))
        }
    }

    private func waitHello(_ worker: Worker) throws(Trouble) -> Report {
        do { return try worker.report(to: 0, within: answer, abort: committed ? nil : abort) } catch {
            throw Trouble(step: .hello, side: .incoming, failure: error)
        }
    }

    func lend(_ lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)], to worker: Worker) throws(Trouble) {
        do { try worker.lend(lease, within: answer, abort: committed ? nil : abort) } catch { throw trouble(error, worker, .lend) }
    }

    /// Has both workers do once more what the blackout takes, the incoming one where the guest runs. It stays there, and loads by itself when
    /// the outgoing one freezes. Returns that CPU, if it is known and both images know how to do this.
    private func practise(with worker: Worker) throws(Trouble) -> UInt32? {
        let images = [outgoing.image.description, worker.image.description]
        guard images.allSatisfy({ $0.features.contains(WorkerFeature.loadsWhenFrozen) }) else { return nil }
        return try step(.practise, nil) { () throws(Trouble) in
            let saved = try ask(outgoing, .practise(cpu: nil), .practise, within: answer)
            guard case .practised(let cpu) = saved else { throw unexpected(saved, .practise, .outgoing) }
            let loaded = try ask(worker, .practise(cpu: cpu), .practise, within: answer)
            guard case .practised = loaded else { throw unexpected(loaded, .practise, .incoming) }
            let patience = UInt64(max(1, (settleLimit + budget).nanoseconds))
            do throws(WorkerFailure) { expectedLoad = try worker.post(.loadWhenFrozen(patienceNanoseconds: patience)) } catch {
                throw trouble(error, worker, .practise)
            }
            return cpu
        }
    }

    private var settleLimit: Duration { spec.holdsIO ? answer + .nanoseconds(spec.upgrade.ioHoldBudget) : answer }

    private func settle() throws(Trouble) {
        settled = true  // from the order on: what it began must be undone by an abort
        try step(.settle, spec.holdsIO ? "I/O hold (guest running)" : "back ends drained (guest running)") { () throws(Trouble) in
            let order = Order.settle(holdNanoseconds: UInt64(max(1, spec.upgrade.ioHoldBudget)))
            if spec.holdsIO { times.holdBegan = SystemClock.monotonic() }
            let report = try ask(outgoing, order, .settle, within: settleLimit)
            guard case .settled(let began, _) = report else { throw unexpected(report, .settle, .outgoing) }
            if spec.holdsIO { times.holdBegan = began }
        }
    }

    /// Goes where the guest is about to stop: who is woken there runs at once. The outgoing worker saves once more, since its devices may have taken
    /// long to come to rest.
    private func approach(_ cpu: UInt32?) throws(Trouble) {
        guard let cpu else { return }
        ownAffinity = SystemThread.stay(on: cpu)
        let report = try ask(outgoing, .practise(cpu: nil), .settle, within: answer)
        guard case .practised = report else { throw unexpected(report, .settle, .outgoing) }
    }

    /// Wherever this thread may run: what comes next it hears of without taking a CPU from the guest.
    private func leaveGuestCPU() {
        if let ownAffinity { try? SystemThread.setAffinity(ownAffinity) }
        ownAffinity = nil
    }

    // MARK: Blackout

    private func stopAndSave() throws(Trouble) {
        host.hook(.park)
        host.hook(.save)
        times.begin(.park)
        let order = Order.save(freezeNanoseconds: UInt64(max(1, budget.nanoseconds)))
        let report: Report
        do throws(WorkerFailure) {
            let sequence = try outgoing.post(order)
            hearOfLoad()
            report = try outgoing.report(to: sequence, within: budget, abort: abort)
        } catch {
            throw trouble(error, outgoing, .save)
        }
        guard case .saved(let length, let digest, let parkBegan, let parked, let saved) = report else { throw unexpected(report, .save, .outgoing) }
        times.begin(.park, at: parkBegan)
        times.end(.park, at: parked)
        times.begin(.save, at: parked)
        times.end(.save, at: saved)
        times.end(.saved)
        checkpoint = (length, digest)
        host.hook(.saved)
    }

    /// Waits a moment for the second of two reports alone: hearing the first, that all is saved, would take the CPU from loading.
    private func hearOfLoad() {
        guard let expected = expectedLoad, let incoming else { return }
        do throws(WorkerFailure) {
            heard = .success(try incoming.report(to: expected, within: min(budget, .milliseconds(2)), abort: abort))
        } catch .timedOut, .abortRequested {
            return  // both are met again
        } catch {
            heard = .failure(error)
        }
        expectedLoad = nil
    }

    func load(_ worker: Worker) throws(Trouble) {
        host.hook(.load)
        let report = try loaded(worker)
        guard case .loaded(let began, let loaded) = report else { throw unexpected(report, .load, .incoming) }
        times.begin(.load, at: began)
        times.end(.load, at: loaded)
        times.end(.loaded)
        host.hook(.loaded)
    }

    private func loaded(_ worker: Worker) throws(Trouble) -> Report {
        if let heard {
            self.heard = nil
            do { return try heard.get() } catch { throw trouble(error, worker, .load) }
        }
        guard let expected = expectedLoad, worker === incoming else {
            return try ask(worker, .load(length: checkpoint.length, digest: checkpoint.digest), .load, within: budget)
        }
        expectedLoad = nil
        do { return try worker.report(to: expected, within: budget, abort: committed ? nil : abort) } catch { throw trouble(error, worker, .load) }
    }

    /// The commit point: from here on only the incoming generation may run.
    private func commit(to worker: Worker) throws(Trouble) {
        times.begin(.commit)
        host.hook(.commit)
        let frozen = CommitWord(.frozen, outgoing.generation)
        let (won, found) = resources.commitWord.exchange(
            expected: frozen.rawValue, desired: CommitWord(.committed, worker.generation).rawValue)
        times.end(.commit)
        if !won {
            let says = CommitWord(rawValue: found)?.description ?? "0x" + String(found, radix: 16)
            throw Trouble(
                step: .commit, side: .outgoing,
                failure: .failed("it ended its freeze at the blackout budget of \(budget.milliseconds) ms; the commit word says \(says)"))
        }
        committed = true
    }

    func grant(_ worker: Worker) throws(Trouble) {
        host.hook(.grant)
        times.begin(.grant)
        let report: Report
        do throws(WorkerFailure) {
            let sequence = try worker.post(.grant)
            SystemThread.setEagerness(.patient)  // the guest, when it runs, is not interrupted for the news
            defer { SystemThread.setEagerness(.ordinary) }
            report = try worker.report(to: sequence, within: answer, abort: committed ? nil : abort)
        } catch {
            throw trouble(error, worker, .grant)
        }
        guard case .running(let granted, let firstRun) = report else { throw unexpected(report, .grant, .incoming) }
        times.end(.grant, at: granted)
        times.begin(.running, at: granted)
        times.end(.running, at: firstRun)
        host.hook(.running)
    }

    /// The word keeps the outgoing worker from running the guest; this, and its end, from doing anything. Not earlier: each of its threads wakes up to
    /// be stopped, those of vCPUs on the CPUs that the guest needs.
    private func fence() {
        times.begin(.fence)
        host.hook(.fence)
        outgoing.stop()
        times.end(.fence)
    }

    // MARK: Small things

    /// Times a step in which the guest runs, and tells who follows.
    private func step<Value>(_ name: Handover.Step, _ detail: String?, _ body: () throws(Trouble) -> Value) throws(Trouble) -> Value {
        times.begin(name)
        tell(name, .begin, nil)
        host.hook(name)
        let value = try body()
        times.end(name)
        tell(name, .end, detail)
        return value
    }

    func tell(_ step: Handover.Step, _ state: Control.Step.State, _ detail: String?) {
        guard let phase = Phase(rawValue: step.rawValue) else { return }
        let time = state == .begin ? SystemClock.monotonic() - times.began : times.duration(step)
        progress(Control.Step(machine: spec.name, phase: phase, state: state, nanoseconds: Int(time), detail: detail))
    }

    /// Tells of the steps of the blackout, after it.
    func tellBlackout() {
        for step in [Handover.Step.park, .save, .saved, .load, .loaded, .commit, .grant, .running, .fence] where times.ending(of: step) != nil {
            tell(step, .end, step == .saved ? "\(checkpoint.length) bytes" : nil)
        }
    }

    func ask(
        _ worker: Worker, _ order: Order, descriptors: [SharedDescriptor] = [], _ step: Handover.Step, within limit: Duration
    ) throws(Trouble) -> Report {
        do {
            return try worker.order(order, descriptors: descriptors, within: limit, abort: committed ? nil : abort)
        } catch {
            throw trouble(error, worker, step)
        }
    }

    private func trouble(_ failure: WorkerFailure, _ worker: Worker, _ step: Handover.Step) -> Trouble {
        let side: Trouble.Side = failure == .abortRequested ? .supervisor : worker === outgoing ? .outgoing : .incoming
        return Trouble(step: step, side: side, failure: failure)
    }

    func unexpected(_ report: Report, _ step: Handover.Step, _ side: Trouble.Side) -> Trouble {
        Trouble(step: step, side: side, failure: .misbehaved("it answered with report \(report.kind), which does not belong there"))
    }

    /// Gives up an incoming worker: it is killed, and reaped by whoever takes ``discarded``.
    func discardIncoming() {
        guard let worker = incoming else { return }
        try? worker.process.send(.kill)
        discarded.append(worker)
        incoming = nil
        expectedLoad = nil
        heard = nil
    }
}
