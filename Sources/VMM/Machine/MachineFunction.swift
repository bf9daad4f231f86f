internal import Checkpoint
internal import Devices
internal import SystemPackage

/// A function on bus 0, of either kind, as a machine deals with it.
enum MachineFunction: Sendable {
    case virtio(VirtioPCIFunction)
    case passedThrough(PassthroughFunction)

    var pci: any PCIFunction {
        switch self {
        case .virtio(let function): function
        case .passedThrough(let function): function
        }
    }

    /// Where its BARs are; 0 for nowhere.
    var placements: [UInt64] {
        switch self {
        case .virtio(let function): [function.placement ?? 0]
        case .passedThrough(let function): function.placements
        }
    }

    /// Where its interrupts lead, of one that is passed through: KVM is told of the others' as they come.
    var messages: [VectorMessage] {
        switch self {
        case .virtio: []
        case .passedThrough(let function): function.messages
        }
    }

    func anticipate(_ placements: [UInt64], _ messages: [VectorMessage]) {
        switch self {
        case .virtio(let function): if let first = placements.first, first != 0 { function.anticipate(first) }
        case .passedThrough(let function): function.anticipate(placements, messages)
        }
    }

    func start() throws(Errno) {
        if case .virtio(let function) = self { try function.start() }
    }

    func hold() {
        switch self {
        case .virtio(let function): function.hold()
        case .passedThrough(let function): function.quiesce()
        }
    }

    /// `false` when it did not come to rest in time. What is passed through does not rest: it goes on, and its interrupts wait.
    func drain(until deadline: Int64) -> Bool {
        switch self {
        case .virtio(let function): function.drain(until: deadline)
        case .passedThrough: true
        }
    }

    func resume() {
        switch self {
        case .virtio(let function): function.resume()
        case .passedThrough(let function): function.resume()
        }
    }

    func finish() {
        switch self {
        case .virtio(let function): function.finish()
        case .passedThrough(let function): function.stop()
        }
    }

    /// Writes its sections.
    func save(to writer: inout CheckpointWriter, versions: SectionVersions, instance: UInt32) {
        switch self {
        case .virtio(let function):
            let state = function.state
            state.function.save(to: &writer, versions: versions, instance: instance)
            state.transport.save(to: &writer, versions: versions, instance: instance)
            function.device.save(to: &writer, versions: versions, instance: instance)
        case .passedThrough(let function): function.state().save(to: &writer, versions: versions, instance: instance)
        }
    }

    /// Reads them or throws; the result restores them, and cannot fail.
    func decode(_ reader: CheckpointReader, instance: UInt32) throws(CheckpointError) -> @Sendable () -> Void {
        switch self {
        case .virtio(let function):
            let state = VirtioFunctionState(
                function: try PCIFunctionState(from: reader, instance: instance), transport: try VirtioState(from: reader, instance: instance))
            if !function.accepts(state) { throw .otherShape(PCIFunctionState.section.name, instance) }
            let backEnd = try function.device.decode(reader, instance: instance)
            return {
                function.restore(state)
                backEnd()
            }
        case .passedThrough(let function):
            let state = try PassthroughState(from: reader, instance: instance)
            if !function.accepts(state) { throw .otherShape(PassthroughState.section.name, instance) }
            return { function.restore(state) }
        }
    }
}

extension VirtioDevice {
    fileprivate func save(to writer: inout CheckpointWriter, versions: SectionVersions, instance: UInt32) {
        state().save(to: &writer, versions: versions, instance: instance)
    }

    fileprivate func decode(_ reader: CheckpointReader, instance: UInt32) throws(CheckpointError) -> @Sendable () -> Void {
        let state = try State(from: reader, instance: instance)
        return { self.restore(state) }
    }
}
