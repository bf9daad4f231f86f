internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import SystemPackage

/// What a handover keeps in custody, so that another supervisor process could finish it: checkpoint and blueprint, under the
/// outgoing generation.
extension HandoverRun {
    enum Deposit: String, CaseIterable {
        case checkpoint
        case blueprint
    }

    static func key(_ deposit: Deposit, machine: String, generation: UInt32) -> CustodyKey {
        CustodyKey(machine: machine, name: deposit.rawValue, generation: generation)
    }

    private func key(_ deposit: Deposit) -> CustodyKey {
        Self.key(deposit, machine: spec.name, generation: outgoing.generation)
    }

    func depositBlueprint() throws(Trouble) {
        do {
            let memory = try MemoryDescriptor(name: "blueprint", size: 0)
            try memory.descriptor.writeAll(blueprint)
            try memory.sealContent()
            try host.custody.put(key(.blueprint), SharedDescriptor(memory.takeDescriptor()))
        } catch {
            throw Trouble(step: .preflight, side: .supervisor, failure: .failed("the blueprint cannot be deposited: \(error)"))
        }
    }

    /// The checkpoint's memory: made, deposited and lent to the outgoing worker when first asked for.
    func sharedCheckpoint() throws(Trouble) -> SharedDescriptor {
        if let checkpointFile { return checkpointFile }
        let file: SharedDescriptor
        do {
            file = try MachineResources.sizedMemory(name: "checkpoint", size: (1 << 20) + spec.vcpus * (64 << 10))
            try host.custody.put(key(.checkpoint), file)
        } catch {
            throw Trouble(step: .lend, side: .supervisor, failure: .failed("checkpoint memory: \(error)"))
        }
        try lend([(ManifestEntry(name: "checkpoint", kind: .checkpoint), file)], to: outgoing)
        checkpointFile = file
        return file
    }

    /// Takes checkpoint and blueprint of an earlier supervisor process out of custody; whether both are there.
    func recallCustody() -> Bool {
        guard let file = try? host.custody.get(key(.checkpoint)), let stored = try? host.custody.get(key(.blueprint)),
            let bytes = try? stored.descriptor.read(upTo: Envelope.maximumLength, at: 0)
        else { return false }
        checkpointFile = file
        blueprint = bytes
        // How long it is was known to the earlier process only; its header says it too.
        checkpoint = (0, 0)
        return true
    }
}
