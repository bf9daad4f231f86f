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
///        │         │── practise, takeOver ──────────────────>│
///        │         │── settle ─────────>│
///        │         │── save ───────────>│ stop, write                         frozen(g)
///        │         │                                         │ verify, restore
///        │         │                                         │ commit         committed(g+1)
///        │         │                                         │ run            running(g+1)
///        │         │── SIGSTOP ────────>│
///
/// Where an image does not know `takeOver`, the supervisor orders `load` and `grant` and commits in between.
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
    /// The order to take over that the incoming worker has been given: it may commit at any moment from the freeze on.
    private(set) var takeover: UInt32?
    /// How long the workers' practice took.
    private var practised = Duration.zero
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
            try practise(with: worker)
            try settle()
            if let takeover {
                try practiseOnceMore()
                try stopAndFollow(worker, takeover)
            } else {
                try awaitSaved(try orderSave())
                try load(worker)
                try commit(to: worker)
                try grant(worker)
            }
            fence()
            return .committed(worker: worker, note: nil)
        } catch {
            return resolve(error)
        }
    }

    // MARK: While the guest runs

    private func preflight(_ agreement: SectionAgreement) throws(Trouble) {
        try step(.preflight, "formats agree (\(agreement.versions.map { "\($0.name) \($0.version)" }.joined(separator: ", ")))") {
            () throws(Trouble) in
            let versions = agreement.versions + (bothAre(able: WorkerFeature.knowsMessages) ? [.blueprintWithMessages] : [])
            let report = try ask(outgoing, .exportBlueprint(versions: versions), .preflight, within: answer)
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

    private func bothAre(able feature: String) -> Bool {
        [outgoing.image, image].allSatisfy { $0.description.features.contains(feature) }
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
        let report = try hear(worker, 0, .hello, within: answer)
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

    func lend(_ lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)], to worker: Worker) throws(Trouble) {
        do { try worker.lend(lease, within: answer, abort: committed ? nil : abort) } catch { throw trouble(error, worker, .lend) }
    }

    /// Has both workers do once more what the blackout takes, the incoming one where the guest runs. It stays there, and takes over by itself when
    /// the outgoing one freezes: that is this supervisor's commit, given in advance. Nothing of it where one of the images knows no such thing.
    private func practise(with worker: Worker) throws(Trouble) {
        guard bothAre(able: WorkerFeature.takesOver) else { return }
        let began = SystemClock.monotonic()
        try step(.practise, nil) { () throws(Trouble) in
            let saved = try ask(outgoing, .practise(cpu: nil), .practise, within: answer)
            guard case .practised(let cpu) = saved else { throw unexpected(saved, .practise, .outgoing) }
            let loaded = try ask(worker, .practise(cpu: cpu), .practise, within: answer)
            guard case .practised = loaded else { throw unexpected(loaded, .practise, .incoming) }
            practised = .nanoseconds(SystemClock.monotonic() - began)
            let patience = UInt64(max(1, (settleLimit + budget).nanoseconds))
            takeover = try post(.takeOver(patienceNanoseconds: patience), to: worker, .practise)
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

    /// The outgoing worker saves once more, since its devices may have taken long to come to rest.
    private func practiseOnceMore() throws(Trouble) {
        let report = try ask(outgoing, .practise(cpu: nil), .settle, within: answer)
        guard case .practised = report else { throw unexpected(report, .settle, .outgoing) }
    }

    // MARK: Blackout

    private func orderSave() throws(Trouble) -> UInt32 {
        host.hook(.park)
        host.hook(.save)
        times.begin(.park)
        return try post(.save(freezeNanoseconds: UInt64(max(1, budget.nanoseconds))), to: outgoing, .save)
    }

    private func awaitSaved(_ sequence: UInt32) throws(Trouble) {
        let report = try hear(outgoing, sequence, .save, within: budget)
        guard case .saved(let length, let digest, let parkBegan, let parked, let saved) = report else { throw unexpected(report, .save, .outgoing) }
        times.begin(.park, at: parkBegan)
        times.end(.park, at: parked)
        times.begin(.save, at: parked)
        times.end(.save, at: saved)
        times.end(.saved)
        checkpoint = (length, digest)
        host.hook(.saved)
    }

    /// Stops the guest. The rest is between the workers: the incoming one loads what the outgoing one saves, commits by the word and runs.
    private func stopAndFollow(_ worker: Worker, _ takeover: UInt32) throws(Trouble) {
        SystemThread.setEagerness(.patient)  // nobody is interrupted for the news
        defer { SystemThread.setEagerness(.ordinary) }
        let saving = try orderSave()
        // For as long as all should take the last report alone counts: hearing the first would take a CPU from what comes between them.
        let patience = min(budget, max(.milliseconds(2), min(practised, .milliseconds(20))))
        var last: Result<Report, WorkerFailure>? = Result { () throws(WorkerFailure) in
            try worker.report(to: takeover, within: patience, abort: abort)
        }
        if case .failure(.timedOut) = last { last = nil }
        if case .failure(.abortRequested) = last { last = nil }  // met again, if it is not too late
        do throws(Trouble) { try awaitSaved(saving) } catch {
            guard hasCommitted(worker) else { throw error }  // what has become of a past worker is of no interest
        }
        try tookOver(worker, try awaitTakeover(worker, takeover, heard: last))
    }

    /// What a worker that was told to take over says when it has. Committed in time, it may then take as long as any worker with a grant.
    private func awaitTakeover(_ worker: Worker, _ takeover: UInt32, heard: Result<Report, WorkerFailure>?) throws(Trouble) -> Report {
        do throws(WorkerFailure) {
            if let heard { return try heard.get() }
            if !hasCommitted(worker) {
                do throws(WorkerFailure) { return try worker.report(to: takeover, within: budget, abort: abort) } catch {
                    switch error {
                    case .timedOut where hasCommitted(worker), .abortRequested where hasCommitted(worker): break
                    default: throw error
                    }
                }
            }
            return try worker.report(to: takeover, within: answer)
        } catch {
            throw trouble(error, worker, hasCommitted(worker) ? .grant : .load)
        }
    }

    private func tookOver(_ worker: Worker, _ report: Report) throws(Trouble) {
        guard case .tookOver(let began, let loaded, let committed, let firstRun) = report else { throw unexpected(report, .load, .incoming) }
        self.committed = true
        let ends: [(Handover.Step, begin: Int64, end: Int64)] = [
            (.load, began, loaded), (.loaded, loaded, loaded), (.commit, loaded, committed), (.grant, committed, committed),
            (.running, committed, firstRun),
        ]
        for (step, begin, end) in ends {
            times.begin(step, at: begin)
            times.end(step, at: end)
            host.hook(step)
        }
    }

    /// Whether the commit word names this worker, running or about to.
    private func hasCommitted(_ worker: Worker) -> Bool {
        CommitWord(rawValue: resources.commitWord.load())?.generation == worker.generation
    }

    /// `limit`: the blackout budget without one.
    func load(_ worker: Worker, within limit: Duration? = nil) throws(Trouble) {
        host.hook(.load)
        let report = try ask(worker, .load(length: checkpoint.length, digest: checkpoint.digest), .load, within: limit ?? budget)
        guard case .loaded(let began, let loaded) = report else { throw unexpected(report, .load, .incoming) }
        times.begin(.load, at: began)
        times.end(.load, at: loaded)
        times.end(.loaded)
        host.hook(.loaded)
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
        let sequence = try post(.grant, to: worker, .grant)
        SystemThread.setEagerness(.patient)  // the guest, when it runs, is not interrupted for the news
        defer { SystemThread.setEagerness(.ordinary) }
        let report = try hear(worker, sequence, .grant, within: answer)
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

    func ask(_ worker: Worker, _ order: Order, _ step: Handover.Step, within limit: Duration) throws(Trouble) -> Report {
        try hear(worker, try post(order, to: worker, step), step, within: limit)
    }

    private func post(_ order: Order, to worker: Worker, _ step: Handover.Step) throws(Trouble) -> UInt32 {
        do { return try worker.post(order) } catch { throw trouble(error, worker, step) }
    }

    private func hear(_ worker: Worker, _ sequence: UInt32, _ step: Handover.Step, within limit: Duration) throws(Trouble) -> Report {
        do { return try worker.report(to: sequence, within: limit, abort: committed ? nil : abort) } catch { throw trouble(error, worker, step) }
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
        takeover = nil
    }
}
