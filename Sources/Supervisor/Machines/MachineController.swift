internal import Channel
internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import Synchronization

/// One machine: its thread runs its commands one after another, drives its handovers and watches its worker.
///
/// Everything but ``snapshot`` and the mailbox belongs to that thread.
final class MachineController: @unchecked Sendable {
    let spec: MachineSpec
    let machineID: String
    let slot: Int
    let host: Host
    let resources: MachineResources
    let journal: Journal
    /// Called on the machine's thread when nothing more will be done to it.
    let onEnd: @Sendable (MachineDetails) -> Void

    // The machine thread's own.
    var worker: Worker?
    var state: MachineState = .starting
    /// CLOCK_MONOTONIC; read by any thread.
    let poweredOnAt: Atomic<Int64>
    /// Where a rollback goes, and further back.
    var trail = ImageTrail()
    var previousImage: WorkerImage? { trail.newest }
    /// What is started once a worker that would not end has ended.
    var retiredImage: WorkerImage?
    /// Past workers whose end has not been seen yet.
    var retiring: [Worker] = []
    var soak: Soak?
    /// The newest handover; the journal has them all.
    var lastHandover: HandoverRecord?
    /// Why the newest state is what it is, for `show`.
    var remark: String?
    /// When to ask the worker again to take over what its predecessor was charged for (CLOCK_MONOTONIC); `nil`: it has.
    var nextAddresses: Int64?
    /// Devices that the host wants back, by their places.
    var wantedBack: Set<Int> = []

    struct Command {
        let body: @Sendable (MachineController) -> Void
        /// Which operation it is; none for what nobody asked for.
        let operation: UInt64?
    }

    /// What is being done to a machine until it has been answered: what is tidied up after that is nobody else's business.
    struct Operation {
        let name: String
        /// CLOCK_MONOTONIC.
        let since: Int64
        let number: UInt64

        var isHandover: Bool { name == "upgrade" || name == "rollback" }
    }

    struct Mailbox {
        var commands: [Command] = []
        var operation: Operation?
        var operations: UInt64 = 0
        var closed = false
    }
    /// For handovers, and for writing records as JSON, which takes the most.
    private static let stackSize = 512 << 10
    private let mailbox = Mutex(Mailbox())
    private let wake: EventDescriptor
    /// Readable while the operator wants the handover under way to end.
    let abortRequest: EventDescriptor
    private let published: Mutex<MachineDetails>
    private let imagesInUse = Mutex<[String]>([])

    init(
        spec: MachineSpec, machineID: String, slot: Int, host: Host, resources: MachineResources, journal: Journal, poweredOnAt: Int64,
        onEnd: @escaping @Sendable (MachineDetails) -> Void
    ) throws {
        self.spec = spec
        self.machineID = machineID
        self.slot = slot
        self.host = host
        self.resources = resources
        self.journal = journal
        self.onEnd = onEnd
        self.poweredOnAt = Atomic(poweredOnAt)
        wake = try EventDescriptor()
        abortRequest = try EventDescriptor()
        let none = ImageReference(version: "", digest: "")
        published = Mutex(
            MachineDetails(
                machine: Machine(
                    name: spec.name, state: .starting, vcpus: spec.vcpus, memoryBytes: spec.memory.sizeBytes, image: none, generation: 0,
                    uptimeNanoseconds: 0), spec: spec, model: "baton-1"))
    }

    // MARK: Any thread

    /// Digests of the images it runs or may go back to.
    var neededImages: [String] { imagesInUse.withLock { $0 } }

    /// Whether the machine is off and its thread gone, so that its name is free.
    var hasEnded: Bool { mailbox.withLock { $0.closed } }

    /// The machine as of now.
    var snapshot: MachineDetails {
        var details = published.withLock { $0 }
        if let operation = mailbox.withLock({ $0.operation }) {
            details.operation = .init(
                name: operation.name, phase: nil, elapsedNanoseconds: Int(SystemClock.monotonic() - operation.since))
            if operation.isHandover, details.machine.state == .running { details.machine.state = .upgrading }
        }
        if details.machine.state != .stopped, details.machine.state != .crashed {
            details.machine.uptimeNanoseconds = Int(SystemClock.monotonic() - poweredOnAt.load(ordering: .relaxed))
        }
        return details
    }

    /// Starts the machine's thread; `first` runs on it before anything else, and is let go of then.
    func start(_ first: (@Sendable (MachineController) -> Void)? = nil) throws {
        if let first { mailbox.withLock { $0.commands.insert(Command(body: first, operation: nil), at: 0) } }
        let thread = try SystemThread(name: "m/\(spec.name)", stack: Self.stackSize) { [self] in loop() }
        thread.detach()
    }

    /// Runs `body` on the machine's thread, if nothing else is being done to the machine.
    func submit<Value: Sendable>(
        _ operation: String, _ body: @escaping @Sendable (MachineController, Ticket<Value>) -> Void
    ) throws(ControlError) -> Ticket<Value> {
        let result = mailbox.withLock { mailbox -> Result<Ticket<Value>, ControlError> in
            if mailbox.closed { return .failure(.machineNotFound(machine: spec.name)) }
            if let running = mailbox.operation { return .failure(.busy(machine: spec.name, operation: running.name)) }
            mailbox.operations += 1
            let number = mailbox.operations
            mailbox.operation = Operation(name: operation, since: SystemClock.monotonic(), number: number)
            let ticket = Ticket<Value> { [weak self] in self?.operationEnded(number) }
            mailbox.commands.append(Command(body: { machine in body(machine, ticket) }, operation: number))
            return .success(ticket)
        }
        let ticket = try result.get()
        wake.signal()
        return ticket
    }

    /// Another one may begin.
    private func operationEnded(_ number: UInt64) {
        mailbox.withLock { mailbox in
            guard mailbox.operation?.number == number else { return }
            mailbox.operation = nil
            abortRequest.take()
        }
    }

    /// Asks for the end of the handover under way.
    func requestAbort() throws(ControlError) {
        let underWay = mailbox.withLock { mailbox in
            guard mailbox.operation?.isHandover ?? false else { return false }
            abortRequest.signal()
            return true
        }
        if !underWay { throw .refused(machine: spec.name, reasons: ["no handover is under way"]) }
    }

    // MARK: The machine's thread

    private func loop() {
        SystemThread.setUrgent(true)
        while !mailbox.withLock({ $0.closed && $0.commands.isEmpty }) {
            let command = mailbox.withLock { $0.commands.isEmpty ? nil : $0.commands.removeFirst() }
            if let command {
                command.body(self)
                if let number = command.operation { operationEnded(number) }
                publish()
                continue
            }
            waitForSomething()
            reapRetired()
            watchWorker()
            watchSoak()
            watchFence()
            watchDevices()
            watchAddresses()
        }
    }

    private func waitForSomething() {
        var poll = Poll([(wake.descriptor.number, .readable)])
        if let worker {
            poll.add(worker.channel.number)
            poll.add(worker.process.descriptor.number)
        }
        for past in retiring { poll.add(past.process.descriptor.number) }
        for device in resources.devices.passthrough.devices {
            for event in [device.events.request, device.events.errors] { if let event { poll.add(event.number) } }
        }
        let next = [soak?.nextEvent, nextAddresses].compactMap(\.self).min()
        var limit = next.map { Duration.nanoseconds(max(0, $0 - SystemClock.monotonic())) }
        if worker?.hasNews ?? false { limit = .zero }
        // Most machines wait for days, each on a stack of its own.
        if limit.map({ $0 > .seconds(1) }) ?? true { SystemThread.returnStack() }
        _ = try? poll.wait(timeout: limit)
        wake.take()
    }

    /// Nothing more will be done to this machine: its thread ends.
    func close() {
        mailbox.withLock { $0.closed = true }
        wake.signal()
    }

    private func watchWorker() {
        guard let worker else { return }
        do {
            // What it says may end or restart the machine: then it is a past worker, and its end is no loss.
            for report in try worker.collectUnsolicited() where self.worker === worker { handle(report) }
            if self.worker === worker, let exit = worker.ended { workerLost("the worker \(exit)") }
        } catch {
            worker.kill(within: .seconds(10))
            workerLost("\(error)")
        }
    }

    /// A past worker that would not end has ended at last: what waited for that goes on.
    private func watchFence() {
        guard state == .fencePending, retiring.isEmpty else { return }
        restart(with: retiredImage, why: "the past worker has ended at last")
    }

    private func handle(_ report: Report) {
        switch report {
        case .poweredOff: powerOff("the guest switched itself off")
        case .resetRequested: restart(with: worker?.image, why: "the guest asked for a reset")
        case .resumed(overdue: true):
            host.events.append(
                .warning, machine: spec.name, generation: worker.map { Int($0.generation) },
                detail: "the worker ended a hold or freeze by itself, since nobody did in time")
        default: break  // late news of something that is over
        }
    }

    /// Puts what everybody may see in its place.
    func publish() {
        let details = MachineDetails(
            machine: Machine(
                name: spec.name, state: state, vcpus: spec.vcpus, memoryBytes: spec.memory.sizeBytes,
                image: worker?.image.reference ?? published.withLock { $0.machine.image },
                generation: worker.map { Int($0.generation) } ?? published.withLock { $0.machine.generation },
                uptimeNanoseconds: Int(SystemClock.monotonic() - poweredOnAt.load(ordering: .relaxed)), lastHandover: lastHandover.map(Self.short),
                revertableTo: previousImage?.reference), spec: spec, model: "baton-1",
            worker: worker.map { worker in
                .init(pid: Int(worker.pid), uid: Int(host.users.uid(slot: slot, generation: worker.generation) ?? CurrentProcess.userID))
            }, devices: spec.devices == nil ? nil : resources.devices.settled(spec), blockers: (remark.map { [$0] } ?? []) + requests)
        published.withLock { $0 = details }
        imagesInUse.withLock { $0 = trail.digests + [details.machine.image.digest] }
    }

    private static func short(_ record: HandoverRecord) -> LastHandover {
        LastHandover(
            atNanoseconds: record.startedAtNanoseconds + record.totalNanoseconds, outcome: record.outcome,
            blackoutNanoseconds: record.blackoutNanoseconds, reason: record.reason)
    }

    func note(_ kind: JournalRecord.Kind, _ worker: Worker) {
        note(
            JournalRecord(
                kind, at: Int(SystemClock.wall()),
                worker: .init(generation: Int(worker.generation), pid: Int(worker.pid), image: worker.image.description)))
    }

    func noteSpawned(_ worker: Worker) { note(.spawned, worker) }

    func note(_ record: JournalRecord) {
        do { try journal.append(record) } catch {
            host.events.append(.warning, machine: spec.name, detail: "the journal cannot be written: \(error)")
        }
    }
}
