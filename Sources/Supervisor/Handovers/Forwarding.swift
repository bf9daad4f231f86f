internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem

/// Finishes a handover whose supervisor died between *saved* and *running*, from what is in custody: checkpoint and blueprint.
struct Forwarding {
    let machine: MachineController
    let workers: [Worker]

    func run(from word: CommitWord) -> Worker? {
        // The checkpoint lies under the generation that wrote it. That is not always the one before the word's: another may have failed
        // to take the grant.
        let custody = machine.host.custody
        let deposited = workers.last { worker in
            worker.generation <= word.generation
                && (try? custody.get(HandoverRun.key(.checkpoint, machine: machine.spec.name, generation: worker.generation))) != nil
        }
        guard let last = workers.last, let back = deposited else { return nil }
        let run = HandoverRun(
            host: machine.host, resources: machine.resources, spec: machine.spec, slot: machine.slot, outgoing: back, image: last.image,
            abort: machine.abortRequest.descriptor.number, launched: machine.noteSpawned
        ) { _ in }
        guard run.recallCustody() else { return nil }
        // Frozen: the worker that had been prepared is as good as any. Committed: it did not take its grant, and is ended first.
        if last !== back, last.ended == nil { run.incoming = last }
        run.settled = true
        defer { for failed in run.discarded { machine.retire(failed) } }
        let trouble = Trouble(step: .commit, side: .supervisor, failure: .failed("the supervisor was restarted"))
        guard case .committed(let worker, _) = run.resolve(trouble) else { return nil }
        return worker
    }
}
