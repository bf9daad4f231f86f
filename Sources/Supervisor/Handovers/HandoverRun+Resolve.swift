internal import Control
internal import Handover
internal import LinuxSystem

extension HandoverRun {
    /// Who can run after `trouble`? The commit word says; this acts on it until exactly one party runs, or none can.
    func resolve(_ trouble: Trouble) -> HandoverEnd {
        tell(trouble.step, .failed, trouble.reason)
        let end = decide(trouble)
        // Not earlier: where the outgoing worker runs on, the guest comes first; the end of a process takes a CPU for a while.
        if case .committed = end { return end }
        discardIncoming()
        return end
    }

    private func decide(_ trouble: Trouble) -> HandoverEnd {
        guard let word = CommitWord(rawValue: resources.commitWord.load()) else {
            return .lost(reason: "\(trouble.reason); the commit word is damaged")
        }
        switch (word.state, word.generation) {
        case (.running, outgoing.generation), (.frozen, outgoing.generation):
            return outgoing.ended == nil ? abort(trouble) : goOnWithoutOutgoing(trouble)
        case (.committed, _):
            outgoing.stop()
            committed = true
            // Told to take over, it may be about to run, unless it was this that it did not do.
            let failed = trouble.side == .incoming && trouble.step >= .grant
            return takeover == nil || failed ? replaceIncoming(trouble) : confirmIncoming(word) ?? replaceIncoming(trouble)
        case (.running, _):
            outgoing.stop()
            committed = true
            // It won the word, so it may have run: its state is its own, and the checkpoint is old.
            return confirmIncoming(word) ?? .lost(reason: trouble.reason)
        case (.frozen, _):
            return .lost(reason: "\(trouble.reason); the commit word says \(word)")
        }
    }

    /// Before commit, the outgoing worker alive: it runs on.
    private func abort(_ trouble: Trouble) -> HandoverEnd {
        // If somebody stopped the process it is continued first: the freeze it may be in ends by the same order.
        outgoing.continueAfterStop()
        guard settled else { return .aborted(step: trouble.step, reason: trouble.reason) }
        let resumed = Result { () throws(WorkerFailure) in try outgoing.order(.resume, within: host.configuration.answerDeadline) }
        if let now = CommitWord(rawValue: resources.commitWord.load()), now.generation != outgoing.generation {
            return decide(trouble)  // the incoming worker, told to take over, was faster
        }
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
            return .lost(reason: "\(trouble.reason); its vCPU state died with it")
        }
        committed = true
        guard let incoming, incoming.ended == nil, trouble.side != .incoming else { return replaceIncoming(trouble) }
        do throws(Trouble) {
            // Nobody else can run, so there is time. One that is taking over answers when it has.
            try load(incoming, within: host.configuration.answerDeadline)
            try grant(incoming)
            return .committed(worker: incoming, note: "the outgoing worker died after it had saved; its checkpoint was taken forward")
        } catch {
            return replaceIncoming(error)
        }
    }

    /// Committed, and the incoming worker has not run: another takes the same checkpoint, the previous image first.
    private func replaceIncoming(_ trouble: Trouble) -> HandoverEnd {
        committed = true
        var reason = trouble.reason
        for candidate in [outgoing.image, image] {
            // First the word: whoever it named cannot begin to run any more.
            guard let word = CommitWord(rawValue: resources.commitWord.load()), word.state == .committed,
                case let next = word.generation + 1,
                resources.commitWord.exchange(expected: word.rawValue, desired: CommitWord(.committed, next).rawValue).exchanged
            else { return confirmIncoming(CommitWord(rawValue: resources.commitWord.load())) ?? .lost(reason: "\(reason); it had begun to run") }
            if let failed = incoming {
                failed.kill(within: .seconds(10))
                discardIncoming()
                guard failed.ended != nil else { return .lost(reason: "\(reason); the worker cannot be fenced: fence pending") }
            }
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
        return .lost(reason: reason)
    }

    /// The word names the incoming worker, which runs or is about to; `nil` if it does not say so. A grant harms neither: whoever runs says since when.
    private func confirmIncoming(_ word: CommitWord?) -> HandoverEnd? {
        guard let incoming, incoming.generation == word?.generation, incoming.ended == nil else { return nil }
        incoming.continueAfterStop()
        guard (try? grant(incoming)) != nil else { return nil }
        return .committed(worker: incoming, note: nil)
    }
}
