package import Control
internal import Keeper
internal import LinuxSystem
internal import Synchronization
package import SystemPackage

/// All machines of this host, and what the control socket can ask of them.
package final class SupervisorCore: Sendable {
    package static let version = "0.1.0"

    let host: Host
    let console: ConsoleRelay
    let ports: PortRelay
    private struct Table {
        var machines: [String: MachineController] = [:]
        /// Names being set up, with their places among the worker users.
        var reserved: [String: Int] = [:]
        /// What is left of machines that are off: no process, no thread, no descriptor.
        var ended: [String: MachineDetails] = [:]
    }
    private let table = Mutex(Table())

    package init(host: Host) throws(Errno) {
        self.host = host
        console = try ConsoleRelay()
        ports = try PortRelay()
        try FileSystem.createDirectory(host.configuration.runDirectory + "/machines")
    }

    /// Takes over what an earlier supervisor process left, then serves the console. Call once.
    package func start() throws {
        try console.start()
        try ports.start()
        try host.logs.start()
        for machine in try Recovery(core: self).adoptAll() {
            table.withLock { $0.machines[machine.spec.name] = machine }
        }
    }

    /// Ends every machine, by force after `limit`.
    package func stopMachines(within limit: Duration) {
        for machine in table.withLock({ Array($0.machines.values) }) {
            let ticket: Ticket<Bool>? = try? machine.submit("stop") { machine, ticket in
                do throws(ControlError) {
                    try machine.stop(force: false, within: limit)
                } catch {
                    machine.endMachine(.stopped, "stopped with the supervisor")
                }
                ticket.finish(.success(true))
            }
            _ = try? ticket?.wait()
        }
    }

    func machine(_ name: String) throws(ControlError) -> MachineController {
        let (machine, ended) = table.withLock { ($0.machines[name], $0.ended[name]) }
        if let machine, !machine.hasEnded { return machine }
        if let ended { throw .refused(machine: name, reasons: ["it is \(ended.machine.state.rawValue)", "→ start it again with `baton run`"]) }
        throw .machineNotFound(machine: name)
    }

    /// A machine as it is, or as it was when it ended.
    private func details(_ name: String) throws(ControlError) -> MachineDetails {
        let (machine, ended) = table.withLock { ($0.machines[name], $0.ended[name]) }
        guard let details = machine?.snapshot ?? ended else { throw .machineNotFound(machine: name) }
        return details
    }

    /// A machine is off: what it held is let go of.
    @Sendable func forget(_ details: MachineDetails) {
        console.remove(machine: details.machine.name)
        ports.remove(machine: details.machine.name)
        table.withLock { table in
            table.machines[details.machine.name] = nil
            table.ended[details.machine.name] = details
        }
    }

    /// Forgets images that no machine runs or may go back to.
    private func forgetUnusedImages() {
        let machines = table.withLock { Array($0.machines.values) }
        // A handover under way may need an image that no machine names yet.
        if machines.contains(where: { $0.snapshot.operation != nil }) { return }
        host.images.keepOnly(Set(machines.flatMap(\.neededImages)))
    }
}

extension SupervisorCore: SupervisorService {
    package var info: ServiceInfo { ServiceInfo(version: Self.version) }

    package func run(_ spec: MachineSpec) throws(ControlError) -> Machine {
        guard let path = spec.image ?? host.configuration.defaultImage else {
            throw .invalidSpec(key: "image", reason: "it is missing, and this supervisor has no default image")
        }
        try HostCPUs.require(spec.vcpuAffinity)
        let image = try host.images.admit(path: path)
        guard image.description.models.contains("baton-1") else {
            throw .refused(machine: spec.name, reasons: ["image \(path) does not implement model baton-1"])
        }
        let machine = try register(spec)
        do {
            let ticket: Ticket<Bool> = try machine.submit("run") { machine, ticket in
                do throws(ControlError) {
                    try machine.powerOn(image)
                    ticket.finish(.success(true))
                } catch {
                    machine.endMachine(.crashed, "it did not start")
                    ticket.finish(.failure(error))
                }
            }
            try machine.start()
            _ = try ticket.wait()
        } catch let error as ControlError {
            withdraw(machine)
            throw error
        } catch {
            withdraw(machine)
            throw .failed(reason: "\(error)")
        }
        return machine.snapshot.machine
    }

    package func list() throws(ControlError) -> [Machine] {
        let (machines, ended) = table.withLock { (Array($0.machines.values), Array($0.ended.values)) }
        return (machines.map(\.snapshot.machine) + ended.map(\.machine)).sorted { $0.name < $1.name }
    }

    package func show(machine: String) throws(ControlError) -> MachineDetails { try details(machine) }

    package func upgrade(
        machine name: String, image path: String, progress: @escaping @Sendable (Control.Step) -> Void
    ) throws(ControlError) -> HandoverRecord {
        let machine = try machine(name)
        forgetUnusedImages()
        let image = try host.images.admit(path: path)
        return try follow(machine, "upgrade", progress) { machine, ticket in machine.handOver(to: image, kind: .upgrade, ticket: ticket) }
    }

    package func rollback(machine name: String, progress: @escaping @Sendable (Control.Step) -> Void) throws(ControlError) -> HandoverRecord {
        try follow(try machine(name), "rollback", progress) { machine, ticket in
            guard let back = machine.previousImage else {
                return ticket.finish(.failure(.refused(machine: name, reasons: ["it has run no other image that it could go back to"])))
            }
            machine.handOver(to: back, kind: .rollback, ticket: ticket)
        }
    }

    package func abort(machine: String) throws(ControlError) { try self.machine(machine).requestAbort() }

    package func history(machine name: String, limit: Int) throws(ControlError) -> [HandoverRecord] {
        _ = try details(name)
        do {
            let records = try Journal.read(path: host.journal(of: name))
            return Array(Journal.handovers(records).suffix(limit).reversed())
        } catch {
            throw .failed(reason: "\(error)")
        }
    }

    package func events(after: Int?, machine: String?, waiting: Duration) throws(ControlError) -> EventBatch {
        if let machine { _ = try details(machine) }
        return host.events.events(after: after, machine: machine, waiting: waiting)
    }

    package func openConsole(machine name: String) throws(ControlError) -> ConsoleSession {
        _ = try machine(name)
        return { [console] connection, pending in
            console.attach(machine: name, SharedDescriptor(connection), pending: pending)
        }
    }

    package func pause(machine: String) throws(ControlError) {
        try simple(machine, "pause") { machine throws(ControlError) in try machine.pause() }
    }

    package func resume(machine: String) throws(ControlError) {
        try simple(machine, "resume") { machine throws(ControlError) in try machine.resume() }
    }

    package func stop(machine: String, force: Bool) throws(ControlError) {
        try simple(machine, "stop") { machine throws(ControlError) in try machine.stop(force: force) }
    }

    package func describeImage(path: String) throws(ControlError) -> ImageDescription {
        let image = try host.images.admit(path: path).description
        forgetUnusedImages()
        return image
    }

    package func doctor() throws(ControlError) -> [Check] { Doctor(host: host).examine() }

    // MARK: Commands on machines

    private func follow(
        _ machine: MachineController, _ operation: String, _ progress: (Control.Step) -> Void,
        _ body: @escaping @Sendable (MachineController, Ticket<HandoverRecord>) -> Void
    ) throws(ControlError) -> HandoverRecord {
        try machine.submit(operation, body).wait(progress: progress)
    }

    private func simple(
        _ name: String, _ operation: String, _ body: @escaping @Sendable (MachineController) throws(ControlError) -> Void
    ) throws(ControlError) {
        let ticket: Ticket<Bool> = try machine(name).submit(operation) { machine, ticket in
            do throws(ControlError) {
                try body(machine)
                machine.publish()
                ticket.finish(.success(true))
            } catch {
                ticket.finish(.failure(error))
            }
        }
        _ = try ticket.wait()
    }

    // MARK: Coming and going

    /// Deposits what a machine of this name needs and enters it into the table.
    private func register(_ spec: MachineSpec) throws(ControlError) -> MachineController {
        let slot = try reserve(spec.name)
        defer { table.withLock { $0.reserved[spec.name] = nil } }
        guard let held = try? host.custody.keys(of: spec.name), held.isEmpty else {
            throw .refused(
                machine: spec.name,
                reasons: [
                    "custody holds a machine of that name that this supervisor could not take over",
                    "→ see the log of batond; its worker may still run",
                ])
        }
        var acquired: MachineResources?
        do {
            let directory = host.directory(of: spec.name)
            try FileSystem.createDirectory(directory)
            let resources = try MachineResources.acquire(spec, host: host, users: HostUsers(disk: diskUser, device: deviceUser))
            acquired = resources
            // A journal tells of one life, from power-on to the end; that of the life before is kept beside it.
            let journalPath = host.journal(of: spec.name)
            if FileSystem.exists(journalPath) { try FileSystem.rename(journalPath, to: journalPath + ".1") }
            let machineID = FileSystem.randomBytes(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
            let machine = try MachineController(
                spec: spec, machineID: machineID, slot: slot, host: host, resources: resources, journal: try Journal(path: journalPath),
                poweredOnAt: SystemClock.monotonic(), onEnd: forget)
            machine.note(JournalRecord(.poweredOn, at: Int(SystemClock.wall()), spec: spec, machineID: machineID, slot: slot))
            try attachRelays(machine: spec.name, resources)
            table.withLock { table in
                table.machines[spec.name] = machine
                table.ended[spec.name] = nil
            }
            return machine
        } catch {
            acquired?.removeSockets()
            host.releaseCustody(of: spec.name)
            throw error as? ControlError ?? .failed(reason: "\(spec.name): \(error)")
        }
    }

    /// Lets clients reach the machine's streams.
    func attachRelays(machine: String, _ resources: MachineResources) throws(Errno) {
        let log = host.directory(of: machine) + "/console.log"
        try console.add(machine: machine, stream: resources.console, logPath: log, listener: resources.consoleListener)
        do { try ports.add(machine: machine, resources.devices.ports) } catch {
            console.remove(machine: machine)
            throw error
        }
    }

    /// Which machine has a file or block device open as a disk, and whether it may write.
    private func diskUser(_ identity: FileIdentity) -> (machine: String, writes: Bool)? {
        for machine in table.withLock({ Array($0.machines.values) }) {
            for disk in machine.resources.devices.disks where disk.identity == identity { return (machine.spec.name, disk.isWritable) }
        }
        return nil
    }

    /// Which machine has a device of the host.
    private func deviceUser(_ address: String) -> String? {
        table.withLock { Array($0.machines.values) }.first { $0.spec.passthroughDevices.contains { $0.device.address == address } }?.spec.name
    }

    /// Takes the name for a machine that is being set up: its place among the worker users.
    private func reserve(_ name: String) throws(ControlError) -> Int {
        let (taken, slot) = table.withLock { table -> (Bool, Int?) in
            if table.reserved[name] != nil || table.machines[name] != nil { return (true, nil) }
            let used = Set(table.machines.values.map(\.slot)).union(table.reserved.values)
            let slot = (0..<WorkerUsers.slots).first { !used.contains($0) }
            table.reserved[name] = slot
            return (false, slot)
        }
        if taken { throw .machineExists(machine: name) }
        guard let slot else { throw .failed(reason: "this host has \(WorkerUsers.slots) machines already") }
        return slot
    }

    /// A machine that did not start leaves nothing behind but its journal and logs.
    private func withdraw(_ machine: MachineController) {
        forget(machine.snapshot)
        table.withLock { $0.ended[machine.spec.name] = nil }
    }
}
