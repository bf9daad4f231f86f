internal import Control
internal import Handover
internal import LinuxSystem

extension HandoverRun {
    /// Who can run after `trouble`? The commit word says; this acts on it until exactly one party runs, or none can.
    func resolve(_ trouble: Trouble) -> HandoverEnd {
        tell(trouble.step, .failed, trouble.reason)
        return decide(trouble)
    }

    private func decide(_ trouble: Trouble) -> HandoverEnd {
        guard let word = CommitWord(rawValue: resources.commitWord.load()) else {
            return .lost(reason: "\(trouble.reason); the commit word is damaged")
        }
        switch (word.state, word.generation) {
        case (.running, outgoing.generation), (.frozen, outgoing.generation):
            return outgoing.ended == nil ? abort(trouble) : goOnWithoutOutgoing(trouble)
        case (.committed, _):
            return trouble.side == .incoming ? replaceIncoming(trouble) : awaitIncoming(trouble)
        case (.running, let generation):
            // It won the word, so it may have run: its state is its own, and the checkpoint is old.
            guard let incoming, incoming.generation == generation, incoming.ended == nil, confirmRunning(incoming) else {
                discardIncoming()
                return .lost(reason: trouble.reason)
            }
            return .committed(worker: incoming, note: nil)
        case (.frozen, _):
            return .lost(reason: "\(trouble.reason); the commit word says \(word)")
        }
    }

    /// Before commit, the outgoing worker alive: it runs on.
    private func abort(_ trouble: Trouble) -> HandoverEnd {
        // If somebody stopped the process it is continued first: the freeze it may be in ends by the same order.
        outgoing.continueAfterStop()
        guard settled else {
            discardIncoming()
            return .aborted(step: trouble.step, reason: trouble.reason)
        }
        // The guest first: the end of a process takes a CPU for a while.
        let resumed = Result { () throws(WorkerFailure) in try outgoing.order(.resume, within: host.configuration.answerDeadline) }
        if CommitWord(rawValue: resources.commitWord.load())?.generation == outgoing.generation + 1 {
            return decide(trouble)  // the incoming worker, told to take over, was faster
        }
        discardIncoming()
        do throws(WorkerFailure) {
            let report = try resumed.get()
            guard case .resumed = report else { throw WorkerFailure.misbehaved("it answered resume with report \(report.kind)") }
            times.holdEnded = SystemClock.monotonic()
            return .aborted(step: trouble.step, reason: trouble.reason)
        } catch {
            if outgoing.ended != nil { return goOnWithoutOutgoing(trouble) }
            if outgoing.guestHasEnded { return .aborted(step: trouble.step, reason: "the guest ended its run meanwhile") }
            let unresponsive = Trouble(
                step: trouble.step, side: trouble.side,
                failure: .failed("\(trouble.failure); then the outgoing worker did not run on: \(error)"))
            guard outgoing.kill(within: .seconds(10)) else { return .lost(reason: "\(unresponsive.reason); it cannot be fenced: fence pending") }
            return goOnWithoutOutgoing(unresponsive)  // if it had frozen, its checkpoint is whole
        }
    }

    /// The outgoing worker is dead before commit. Its checkpoint, if it finished one, is all there is.
    private func goOnWithoutOutgoing(_ trouble: Trouble) -> HandoverEnd {
        let (frozen, next) = (CommitWord(.frozen, outgoing.generation), CommitWord(.committed, outgoing.generation + 1))
        let (won, found) = resources.commitWord.exchange(expected: frozen.rawValue, desired: next.rawValue)
        // An incoming worker that was told to take over may have done as much by itself.
        guard won || CommitWord(rawValue: found)?.generation == next.generation else {
            discardIncoming()
            return .lost(reason: "\(trouble.reason); its vCPU state died with it")
        }
        committed = true
        if let incoming, incoming.ended == nil, trouble.side != .incoming {
            do throws(Trouble) {
                try load(incoming)
                try grant(incoming)
                return .committed(worker: incoming, note: "the outgoing worker died after it had saved; its checkpoint was taken forward")
            } catch {
                return replaceIncoming(error)
            }
        }
        return replaceIncoming(trouble)
    }

    /// Committed by the incoming worker, which was told to take over and is about to run.
    private func awaitIncoming(_ trouble: Trouble) -> HandoverEnd {
        guard takeover != nil, let incoming, incoming.ended == nil else { return replaceIncoming(trouble) }
        committed = true
        do throws(Trouble) {
            try grant(incoming)  // as it has taken over, it answers with what it has done
            return .committed(worker: incoming, note: nil)
        } catch {
            return replaceIncoming(error)
        }
    }

    /// Committed, and the incoming worker has not run: another takes the same checkpoint, the previous image first.
    private func replaceIncoming(_ trouble: Trouble) -> HandoverEnd {
        committed = true
        var reason = trouble.reason
        for candidate in [outgoing.image, image] {
            if let failed = incoming {
                failed.kill(within: .seconds(10))
                discardIncoming()
                // Only a worker that certainly never ran may be replaced.
                guard failed.ended != nil else { return .lost(reason: "\(reason); the worker cannot be fenced: fence pending") }
            }
            guard let word = CommitWord(rawValue: resources.commitWord.load()), word.state == .committed else {
                return .lost(reason: "\(reason); it had begun to run")
            }
            let next = word.generation + 1
            let (won, _) = resources.commitWord.exchange(expected: word.rawValue, desired: CommitWord(.committed, next).rawValue)
            guard won else { return .lost(reason: reason) }
            do throws(Trouble) {
                let worker = try prepare(generation: next, image: candidate)
                try load(worker)
                try grant(worker)
                let note = candidate.isSame(as: image) ? nil : "\(reason); \(candidate.description.version) took the checkpoint instead"
                return .committed(worker: worker, note: note)
            } catch {
                reason += "; \(error.reason)"
            }
        }
        discardIncoming()
        return .lost(reason: reason)
    }

    private func confirmRunning(_ worker: Worker) -> Bool {
        worker.continueAfterStop()
        guard case .location(.running)? = try? worker.order(.locate, within: host.configuration.answerDeadline) else { return false }
        times.end(.running)
        return true
    }
}
