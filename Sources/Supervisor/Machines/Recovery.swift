internal import Channel
internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem

/// Takes over the machines that an earlier supervisor process left: the commit word decides, then the workers are asked, then the journal.
struct Recovery {
    let core: SupervisorCore
    private var host: Host { core.host }

    func adoptAll() throws(CustodyError) -> [MachineController] {
        let machines = Dictionary(grouping: try host.custody.list(), by: \.machine)
        return machines.filter { $0.key != "" }.sorted { $0.key < $1.key }.compactMap { name, keys in
            do {
                return try adopt(name, keys)
            } catch {
                host.events.append(.warning, machine: name, detail: "cannot be taken over: \(error); its worker runs on")
                writeToStandardError("batond: \(name) cannot be taken over: \(error); its worker runs on")
                return nil
            }
        }
    }

    private func adopt(_ name: String, _ keys: [CustodyKey]) throws -> MachineController? {
        if !keys.contains(where: { $0.generation > 0 }), !FileSystem.exists(host.journal(of: name)) {
            // The earlier process died before it wrote the power-on down: nothing runs, and nobody else would let go of this.
            host.releaseCustody(of: name)
            return nil
        }
        let records = try Journal.read(path: host.journal(of: name))
        guard let powerOn = records.last(where: { $0.kind == .poweredOn }), let spec = powerOn.spec, let machineID = powerOn.machineID else {
            throw ControlError.failed(reason: "its journal has no power-on")
        }
        let life = Array(records[(records.lastIndex(where: { $0.kind == .poweredOn }) ?? 0)...])
        if life.contains(where: { $0.kind == .ended }) {
            finishEnding(spec, keys)
            return nil
        }
        let resources = try MachineResources.adopt(spec, custody: host.custody)
        let machine = try MachineController(
            spec: spec, machineID: machineID, slot: powerOn.slot ?? 0, host: host, resources: resources,
            journal: try Journal(path: host.journal(of: name)),
            poweredOnAt: SystemClock.monotonic() - (SystemClock.wall() - Int64(powerOn.at)), onEnd: core.forget)
        machine.lastHandover = Journal.handovers(life).last
        let workers = try adoptWorkers(name, keys, life, CommitWord(rawValue: resources.commitWord.load()))
        try core.attachRelays(machine: name, resources)
        let paused = life.last { $0.kind == .paused || $0.kind == .resumed }?.kind == .paused
        try machine.start { machine in
            machine.takeOver(workers, trail: imageTrail(life), life)
            if paused, machine.worker != nil { machine.state = .paused }
            machine.publish()
        }
        return machine
    }

    /// Goes on ending a machine whose end was written down and not finished.
    private func finishEnding(_ spec: MachineSpec, _ keys: [CustodyKey]) {
        for key in keys where key.name == WorkerLauncher.Part.process.rawValue {
            guard let process = try? host.custody.get(key), let own = try? process.descriptor.duplicate() else { continue }
            let worker = ProcessDescriptor(own)
            try? worker.send(.kill)
            _ = worker.waitForEnd(timeout: .seconds(10))
        }
        for path in spec.socketPaths { FileSystem.removeSocket(path) }
        host.releaseCustody(of: spec.name)
    }

    /// Every worker of the machine whose process and session are in custody, dead or alive. One that the journal does not know was
    /// started and given nothing: it is ended.
    private func adoptWorkers(_ name: String, _ keys: [CustodyKey], _ life: [JournalRecord], _ word: CommitWord?) throws -> [Worker] {
        let parts = keys.filter { $0.generation > 0 && WorkerLauncher.Part(rawValue: $0.name) != nil }
        let generations = Set(parts.map(\.generation)).sorted()
        return try generations.compactMap { generation in
            let process = try? host.custody.get(WorkerLauncher.key(name, .process, generation))
            let session = try? host.custody.get(WorkerLauncher.key(name, .session, generation))
            guard let process, let session, let ownProcess = try? process.descriptor.duplicate(), let ownSession = try? session.descriptor.duplicate()
            else {
                // Deposited by half, or forgotten by half, as the earlier supervisor process died.
                if let process, let own = try? process.descriptor.duplicate() {
                    try endUnlessRunning(ProcessDescriptor(own), generation, word, "its session is not in custody")
                }
                forget(name, generation)
                return nil
            }
            guard let plan = life.last(where: { $0.worker?.generation == Int(generation) && $0.worker?.pid != nil })?.worker,
                let image = try? host.images.adopt(plan.image)
            else {
                let reason = "its journal or custody lacks what worker \(generation) was started from"
                try endUnlessRunning(ProcessDescriptor(ownProcess), generation, word, reason)
                forget(name, generation)
                return nil
            }
            if let log = try? host.custody.get(WorkerLauncher.key(name, .log, generation)) {
                try? host.logs.add(machine: name, generation: generation, stream: log, path: host.workerLog(of: name))
            }
            // Orders of the earlier supervisor process may still be answered: count from far above what it reached.
            return Worker(
                generation: generation, image: image, pid: Int32(plan.pid ?? 0), process: ProcessDescriptor(ownProcess),
                channel: WorkerChannel(UnixSocket(ownSession)), sequence: UInt32.random(in: 1 << 20..<1 << 31))
        }
    }

    /// The one that runs the guest is never ended for want of a record.
    private func endUnlessRunning(_ process: consuming ProcessDescriptor, _ generation: UInt32, _ word: CommitWord?, _ reason: String) throws {
        if let word, word == CommitWord(.running, generation), !process.hasEnded() { throw ControlError.failed(reason: reason) }
        try? process.send(.kill)
    }

    private func forget(_ machine: String, _ generation: UInt32) {
        for part in WorkerLauncher.Part.allCases { try? host.custody.drop(WorkerLauncher.key(machine, part, generation)) }
    }

    /// The images the machine came by in this life, as far as they are in custody.
    private func imageTrail(_ life: [JournalRecord]) -> ImageTrail {
        func image(_ reference: ImageReference) -> WorkerImage? {
            let plan = life.last { $0.worker?.image.digest == reference.digest }?.worker
            return plan.flatMap { try? host.images.adopt($0.image) }
        }
        var trail = ImageTrail()
        for handover in life.compactMap({ $0.kind == .handoverEnded ? $0.handover : nil }) where handover.outcome == .committed {
            guard let past = image(handover.fromImage), let present = image(handover.toImage) else { continue }
            trail.move(from: past, to: present, kind: handover.kind)
        }
        return trail
    }
}

extension MachineController {
    /// Makes one of `workers` the machine's worker and ends the others, as the commit word says.
    func takeOver(_ workers: [Worker], trail: ImageTrail, _ life: [JournalRecord]) {
        self.trail = trail
        state = .running
        func worker(_ generation: UInt32) -> Worker? { workers.first { $0.generation == generation } }
        var word = CommitWord(rawValue: resources.commitWord.load())
        if word?.state == .frozen, let outgoing = word.flatMap({ worker($0.generation) }), outgoing.ended == nil {
            // Nobody waits for this checkpoint any more: the outgoing worker runs on, on order or at its own deadline.
            outgoing.continueAfterStop()
            _ = try? outgoing.order(.resume, within: host.configuration.answerDeadline)
            word = CommitWord(rawValue: resources.commitWord.load())
        }
        let runner = word.flatMap { word in finish(word, workers) }
        self.worker = runner ?? word.flatMap { worker($0.generation) } ?? workers.last
        for past in workers {
            dropHandoverCustody(past.generation)
            if past !== self.worker { retire(past) }
        }
        guard let runner else {
            if life.last(where: { $0.kind == .worker || $0.kind == .restarting })?.kind == .restarting {
                return restart(with: self.worker?.image ?? trail.newest, why: "the restart that was under way goes on")
            }
            return workerLost("its worker ended while no supervisor ran")
        }
        runner.continueAfterStop()
        let unwritten = unwritten(life, runner)
        // The earlier process may not have come to it; it ends the hurry of a handover as well.
        if !spec.passthroughDevices.isEmpty || unwritten != nil { orderAddresses(runner) }
        host.events.append(.adopted, machine: spec.name, generation: Int(runner.generation), detail: runner.image.description.version)
        if life.last(where: { $0.kind == .worker })?.worker?.generation != Int(runner.generation) { note(.worker, runner) }
        if let record = unwritten {
            lastHandover = record
            note(JournalRecord(.handoverEnded, at: Int(SystemClock.wall()), handover: record))
            host.events.append(.handover, machine: spec.name, generation: record.toGeneration, detail: record.reason, handover: record)
            let outgoing = workers.first { Int($0.generation) == record.fromGeneration }
            if record.outcome == .committed, let outgoing { self.trail.move(from: outgoing.image, to: runner.image, kind: record.kind) }
            if record.outcome == .committed, record.kind != .revert { resumeSoak(record) }
        } else if let last = life.last(where: { $0.kind == .handoverEnded || $0.kind == .soakEnded }), last.kind == .handoverEnded,
            let record = last.handover, record.outcome == .committed, record.kind != .revert
        {
            resumeSoak(record)
        }
    }

    /// The record of a handover whose end the earlier supervisor process did not live to write. Who runs now says how it ended.
    private func unwritten(_ life: [JournalRecord], _ runner: Worker) -> HandoverRecord? {
        guard let began = life.lastIndex(where: { $0.kind == .handoverBegan }), !life[began...].contains(where: { $0.kind == .handoverEnded }),
            let incoming = life[began].worker, let outgoing = life[..<began].last(where: { $0.kind == .worker })?.worker
        else { return nil }
        func reference(_ plan: JournalRecord.WorkerPlan) -> ImageReference { ImageReference(version: plan.image.version, digest: plan.image.digest) }
        let outcome: HandoverRecord.Outcome =
            if Int(runner.generation) == outgoing.generation {
                .aborted
            } else if runner.image.description.digest == incoming.image.digest {
                .committed
            } else {
                .reverted
            }
        return HandoverRecord(
            machine: spec.name, kind: life[began].detail.flatMap(HandoverRecord.Kind.init(rawValue:)) ?? .upgrade, outcome: outcome,
            reason: "the supervisor was restarted", fromGeneration: outgoing.generation, toGeneration: Int(runner.generation),
            fromImage: reference(outgoing), toImage: reference(incoming), startedAtNanoseconds: life[began].at,
            totalNanoseconds: Int(SystemClock.wall()) - life[began].at, budgetNanoseconds: spec.upgrade.blackoutBudgetNanoseconds)
    }

    /// Whoever may run by `word`, running.
    private func finish(_ word: CommitWord, _ workers: [Worker]) -> Worker? {
        let named = workers.first { $0.generation == word.generation }
        switch word.state {
        case .running:
            if let named, named.ended == nil {
                named.continueAfterStop()
                // It may have been settled for a handover that nobody finishes; resume is idempotent.
                _ = try? named.order(.resume, within: host.configuration.answerDeadline)
            }
            // It may also have been told to save: then the incoming worker, told to take over, may have been faster.
            if let now = CommitWord(rawValue: resources.commitWord.load()), now != word { return finish(now, workers) }
            return named?.ended == nil ? named : nil
        case .committed:
            for past in workers where past !== named { past.stop() }
            guard let named, named.ended == nil else { return takeForward(word, workers) }
            named.continueAfterStop()
            guard case .running? = try? named.order(.grant, within: host.configuration.answerDeadline) else { return takeForward(word, workers) }
            return named
        case .frozen:
            // The outgoing worker is dead, and its checkpoint is whole: the word says so.
            return takeForward(word, workers)
        }
    }

    /// Has a worker run from the checkpoint in custody that nobody took, or none.
    private func takeForward(_ word: CommitWord, _ workers: [Worker]) -> Worker? {
        Forwarding(machine: self, workers: workers).run(from: word)
    }
}
