internal import Control
internal import LinuxSystem

/// Starts a handover and shows its steps until it is over, or until Ctrl-C: then it goes on alone.
struct HandoverFollower {
    let session: Session
    let machine: String
    let operation: String
    /// Version it is meant to lead to, where known.
    let target: String?

    /// Follows to the end. A handover that does not go through is thrown as the supervisor's error.
    func follow(_ method: SupervisorMethod, _ parameters: some Encodable) throws(CommandFailure) {
        // Before the call: once it is sent, Ctrl-C must be ours to explain.
        let interrupt = session.context.interrupt()
        let output = session.context.output
        var client = try session.connect()
        let details = try client.call(.show, Parameters.OneMachine(machine: machine), as: Results.Show.self).details
        if !session.global.json { output.write(title(details)) }
        let soak = details.spec.upgrade.soak.durationMilliseconds * 1_000_000
        var progress = HandoverProgress(
            style: session.style, columns: output.isTerminal ? output.columns : nil, soakNanoseconds: soak, clock: session.context.clock)
        client.send(method, parameters, more: true)
        do throws(CommandFailure) {
            try receive(&client, &progress, interrupt: interrupt?.number)
        } catch {
            if !session.global.json { output.write(progress.finish(succeeded: false)) }
            throw error
        }
    }

    private func receive(
        _ client: inout SupervisorClient, _ progress: inout HandoverProgress, interrupt: CInt?
    ) throws(CommandFailure) {
        let output = session.context.output
        let redraw: Duration? = output.isTerminal && !session.global.json ? .milliseconds(100) : nil
        while true {
            switch try client.next(Results.Progress.self, timeout: redraw, interrupt: interrupt) {
            case .nothing: output.write(progress.tick())
            case .interrupted: throw .interrupted(machine: machine, operation: operation)
            case .reply(let result, let continues):
                if session.global.json {
                    output.write(jsonText(result, indented: false) + "\n")
                } else if let step = result.step {
                    output.write(progress.take(step))
                } else if let record = result.handover {
                    output.write(progress.finish(succeeded: true) + session.history.outcome(record))
                }
                if !continues { return }
            }
        }
    }

    /// `web1  0.1.0 → 0.2.0  generation 7 → 8`
    private func title(_ details: MachineDetails) -> String {
        let current = details.machine
        let to = target ?? (operation == "rollback" ? current.revertableTo?.version : nil) ?? "?"
        return
            "\(session.style.bold(machine))  \(current.image.version.printable) → \(to.printable)  generation \(current.generation) → \(current.generation + 1)\n"
    }
}
