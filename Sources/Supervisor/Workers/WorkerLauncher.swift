internal import Channel
internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem

/// Starts worker processes: pidfd and session into custody before the first order.
struct WorkerLauncher {
    let host: Host
    let spec: MachineSpec
    let slot: Int

    func launch(_ image: WorkerImage, generation: UInt32) throws -> Worker {
        try host.images.retain(image)
        let pair = try UnixSocket.sequencedPair()
        let workerEnd = pair.far
        let channel = WorkerChannel(pair.takeNear())
        let log = try WorkerLogs.stream()
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", .readWrite))
        var request = SpawnRequest(
            arguments: ["baton-vmm", "--session", "3", "--machine", spec.name, "--generation", "\(generation)"],
            descriptors: [null, log.far, log.far, workerEnd])
        host.users.restrict(&request, slot: slot, generation: generation)
        if host.raisesLimits { request.memoryLock = MemoryLock.limit(spec, host: host) }
        let child = try request.spawn(executing: image.file.descriptor)
        let worker = Worker(generation: generation, image: image, pid: child.pid, process: child.takeProcess(), channel: channel)
        do {
            try deposit(worker, log: log.near)
            try host.logs.add(machine: spec.name, generation: generation, stream: log.near, path: host.workerLog(of: spec.name))
        } catch {
            worker.kill(within: .seconds(5))
            throw error
        }
        return worker
    }

    private func deposit(_ worker: Worker, log: SharedDescriptor) throws {
        forget(generation: worker.generation)  // what an aborted attempt of the same generation left
        try host.custody.put(Self.key(spec.name, .process, worker.generation), SharedDescriptor(try worker.process.descriptor.duplicate()))
        try host.custody.put(Self.key(spec.name, .session, worker.generation), SharedDescriptor(try worker.channel.duplicateSocket()))
        try host.custody.put(Self.key(spec.name, .log, worker.generation), log)
    }

    /// Takes a worker that is gone out of custody.
    func forget(generation: UInt32) {
        host.logs.finish(machine: spec.name, generation: generation)
        for part in Part.allCases { try? host.custody.drop(Self.key(spec.name, part, generation)) }
    }

    enum Part: String, CaseIterable {
        case process = "pidfd"
        case session
        case log
    }

    static func key(_ machine: String, _ part: Part, _ generation: UInt32) -> CustodyKey {
        CustodyKey(machine: machine, name: part.rawValue, generation: generation)
    }
}
