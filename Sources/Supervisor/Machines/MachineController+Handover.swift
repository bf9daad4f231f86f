internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem

/// The watch over a new worker after commit.
struct Soak {
    let record: HandoverRecord
    let ticket: Ticket<HandoverRecord>?
    let ends: Int64
    var nextCheck: Int64
    /// Bad or missing answers in a row.
    var failures = 0

    var nextEvent: Int64 { min(ends, nextCheck) }
    /// So many bad answers in a row end the soak: one late answer on a busy host is no illness.
    static let tolerated = 3
}

extension MachineController {
    /// Moves the machine to `image`. The ticket is finished here, or when the soak is over.
    func handOver(to image: WorkerImage, kind: HandoverRecord.Kind, ticket: Ticket<HandoverRecord>?, why: String? = nil) {
        guard let outgoing = worker, state == .running || state == .soaking || state == .reverted else {
            ticket?.finish(.failure(.refused(machine: spec.name, reasons: ["it is \(state.rawValue)", "→ resume or start it first"])))
            return
        }
        guard waitForRetired(within: .seconds(10)) else {
            ticket?.finish(.failure(.refused(machine: spec.name, reasons: ["a past worker has not ended yet: fence pending"])))
            return
        }
        if kind != .revert { finishSoak(nil) }
        let stateBefore = state
        let run = HandoverRun(
            host: host, resources: resources, spec: spec, slot: slot, outgoing: outgoing, image: image, abort: abortRequest.descriptor.number,
            launched: noteSpawned
        ) { [host, spec] step in
            ticket?.report(step)
            host.events.append(.step, machine: spec.name, step: step)
        }
        note(
            JournalRecord(
                .handoverBegan, at: Int(SystemClock.wall()),
                worker: .init(generation: Int(outgoing.generation) + 1, pid: nil, image: image.description), detail: kind.rawValue))
        let end = run.run()
        for failed in run.discarded { retire(failed) }
        dropHandoverCustody(outgoing.generation)
        switch end {
        case .refused(let reasons):
            record(run, kind, .failed, reason: reasons.joined(separator: "; "))
            ticket?.finish(.failure(.refused(machine: spec.name, reasons: reasons)))
        case .aborted(let step, let reason):
            state = stateBefore
            record(run, kind, .aborted, reason: reason)
            ticket?.finish(.failure(.aborted(machine: spec.name, step: step.rawValue, reason: reason)))
        case .lost(let reason):
            record(run, kind, .failed, reason: reason)
            worker = outgoing
            workerLost(reason)
            ticket?.finish(.failure(.failed(reason: "\(spec.name): \(reason); crash policy: \(spec.onCrash.rawValue)")))
        case .committed(let incoming, let note):
            committed(run, incoming, kind, note: note, ticket: ticket, why: why)
        }
        publish()
    }

    private func committed(
        _ run: HandoverRun, _ incoming: Worker, _ kind: HandoverRecord.Kind, note remarkOfRun: String?, ticket: Ticket<HandoverRecord>?, why: String?
    ) {
        let outgoing = run.outgoing
        worker = incoming
        note(.worker, incoming)
        run.tellBlackout()
        takeAddresses(run, incoming)
        run.times.begin(.retire)
        host.hook(.retire)
        retire(outgoing)
        run.times.end(.retire)
        run.tell(.retire, .end, nil)
        let wanted = incoming.image.isSame(as: run.image)
        trail.move(from: outgoing.image, to: incoming.image, kind: kind)
        state = kind == .revert ? .reverted : .running
        remark = kind == .revert ? why : nil
        let outcome: HandoverRecord.Outcome = wanted ? .committed : .reverted
        let done = record(run, kind, outcome, reason: remarkOfRun ?? why)
        if !wanted {
            state = .reverted
            remark = remarkOfRun
            ticket?.finish(.failure(.reverted(machine: spec.name, reason: remarkOfRun ?? "")))
        } else if kind == .revert || spec.upgrade.soak.durationMilliseconds == 0 {
            ticket?.finish(.success(done))
        } else {
            beginSoak(done, run, ticket)
        }
    }

    private func takeAddresses(_ run: HandoverRun, _ incoming: Worker) {
        run.times.begin(.takeAddresses)
        host.hook(.takeAddresses)
        guard orderAddresses(incoming) else { return }
        run.times.end(.takeAddresses)
        run.tell(.takeAddresses, .end, nil)
    }

    @discardableResult
    private func record(_ run: HandoverRun, _ kind: HandoverRecord.Kind, _ outcome: HandoverRecord.Outcome, reason: String?) -> HandoverRecord {
        let times = run.times
        let record = HandoverRecord(
            machine: spec.name, kind: kind, outcome: outcome, reason: reason, fromGeneration: Int(run.outgoing.generation),
            toGeneration: Int(worker?.generation ?? run.outgoing.generation), fromImage: run.outgoing.image.reference, toImage: run.image.reference,
            startedAtNanoseconds: Int(times.beganWall), totalNanoseconds: Int(SystemClock.monotonic() - times.began),
            blackoutNanoseconds: times.blackout.map { Int($0) }, budgetNanoseconds: spec.upgrade.blackoutBudgetNanoseconds,
            ioHoldNanoseconds: times.ioHold.map { Int($0) }, phases: times.phases,
            steps: times.records)
        lastHandover = record
        note(JournalRecord(.handoverEnded, at: Int(SystemClock.wall()), handover: record))
        host.events.append(.handover, machine: spec.name, generation: record.toGeneration, detail: reason, handover: record)
        return record
    }

    func dropHandoverCustody(_ generation: UInt32) {
        for deposit in HandoverRun.Deposit.allCases {
            try? host.custody.drop(HandoverRun.key(deposit, machine: spec.name, generation: generation))
        }
    }

    // MARK: Soak

    /// Goes on with a soak that an earlier supervisor process began.
    func resumeSoak(_ record: HandoverRecord) {
        let total = Int64(spec.upgrade.soak.durationMilliseconds) * 1_000_000
        let left = Int64(record.startedAtNanoseconds + record.totalNanoseconds) + total - SystemClock.wall()
        guard state == .running, left > 0 else { return }
        let now = SystemClock.monotonic()
        state = .soaking
        soak = Soak(record: record, ticket: nil, ends: now + min(left, total), nextCheck: now + host.configuration.healthInterval.nanoseconds)
    }

    private func beginSoak(_ record: HandoverRecord, _ run: HandoverRun, _ ticket: Ticket<HandoverRecord>?) {
        let now = SystemClock.monotonic()
        state = .soaking
        run.times.begin(.soak)
        run.tell(.soak, .begin, "\(spec.upgrade.soak.durationMilliseconds) ms")
        host.hook(.soak)
        soak = Soak(
            record: record, ticket: ticket, ends: now + Int64(spec.upgrade.soak.durationMilliseconds) * 1_000_000,
            nextCheck: now + host.configuration.healthInterval.nanoseconds)
    }

    /// Looks after the soak, when its time has come.
    func watchSoak() {
        guard var current = soak, SystemClock.monotonic() >= current.nextEvent, let worker, worker.ended == nil else { return }
        if let problem = healthProblem(worker) {
            current.failures += 1
            if current.failures >= Soak.tolerated {
                soak = current
                return soakFailed(problem)
            }
        } else {
            current.failures = 0
        }
        let now = SystemClock.monotonic()
        if now >= current.ends, current.failures == 0 {
            state = .running
            soak = current
            tellSoak(current, .end, "healthy")
            finishSoak(.success(current.record))
            note(JournalRecord(.soakEnded, at: Int(SystemClock.wall()), handover: current.record))
            return publish()
        }
        current.nextCheck = now + host.configuration.healthInterval.nanoseconds
        soak = current
        tellSoak(current, .begin, current.failures == 0 ? "healthy" : "one bad answer")
    }

    private func tellSoak(_ soak: Soak, _ state: Control.Step.State, _ detail: String) {
        let total = Int64(spec.upgrade.soak.durationMilliseconds) * 1_000_000
        let over = total - max(0, soak.ends - SystemClock.monotonic())
        soak.ticket?.report(Control.Step(machine: spec.name, phase: .soak, state: state, nanoseconds: Int(over), detail: detail))
    }

    /// What is wrong with the worker; `nil` when it is well.
    private func healthProblem(_ worker: Worker) -> String? {
        do {
            guard case .health(let alive, let vcpus, let problem) = try worker.order(.health, within: host.configuration.healthDeadline) else {
                return "it answers a health check with something else"
            }
            if let problem { return problem }
            return alive == vcpus ? nil : "\(vcpus - alive) of \(vcpus) vCPUs do not answer"
        } catch .ended {
            return nil  // a crash is seen, and dealt with, where workers are watched
        } catch {
            return "\(error)"
        }
    }

    private func soakFailed(_ problem: String) {
        guard let failed = soak else { return }
        tellSoak(failed, .failed, problem)
        soak = nil
        var record = failed.record
        record.outcome = .reverted
        record.reason = "soak: \(problem)"
        guard spec.upgrade.soak.onFailure == .revert, let back = previousImage else {
            state = .running
            remark = record.reason
            note(JournalRecord(.soakEnded, at: Int(SystemClock.wall()), handover: failed.record))
            failed.ticket?.finish(.failure(.failed(reason: "\(spec.name): \(record.reason ?? ""); kept as its policy says")))
            return publish()
        }
        lastHandover = record
        note(JournalRecord(.soakEnded, at: Int(SystemClock.wall()), handover: record))
        host.events.append(.warning, machine: spec.name, generation: worker.map { Int($0.generation) }, detail: "soak failed: \(problem); reverting")
        state = .running
        handOver(to: back, kind: .revert, ticket: nil, why: record.reason)
        let result: ControlError =
            state == .reverted
            ? .reverted(machine: spec.name, reason: record.reason ?? problem)
            : .failed(reason: "\(spec.name): \(record.reason ?? problem); the revert did not go through: \(lastHandover?.reason ?? "unknown")")
        failed.ticket?.finish(.failure(result))
    }

    /// Ends the soak, if there is one, and tells whoever follows it; `nil`: it went on to something else, and was well so far.
    func finishSoak(_ result: Result<HandoverRecord, ControlError>?) {
        guard let current = soak else { return }
        soak = nil
        if state == .soaking { state = .running }
        current.ticket?.finish(result ?? .success(current.record))
    }
}
