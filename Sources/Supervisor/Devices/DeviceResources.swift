internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem

/// What is behind a machine's devices: opened once, in custody from power-on to power-off, lent to every worker.
struct DeviceResources: Sendable {
    struct Disk: Sendable {
        let device: Int
        let file: SharedDescriptor
        let identity: FileIdentity?
        let isWritable: Bool
    }

    struct Tap: Sendable {
        let device: Int
        let queue: Int
        let file: SharedDescriptor
    }

    struct Port: Sendable {
        let device: Int
        let port: Int
        /// The worker's end of the stream.
        let ofWorker: SharedDescriptor
        /// Our end of it.
        let own: SharedDescriptor
        let listener: SocketListener
    }

    private(set) var disks: [Disk] = []
    private(set) var taps: [Tap] = []
    private(set) var ports: [Port] = []
    private(set) var passthrough = PassthroughResources()

    /// Opens, locks and deposits everything. What was deposited before a failure is dropped again by the caller; sockets are removed here.
    static func acquire(_ spec: MachineSpec, host: Host, users: HostUsers) throws(ControlError) -> Self {
        var resources = DeviceResources()
        do {
            try MemoryLock.require(spec, host: host)
            resources.passthrough = try PassthroughOpener.open(spec.passthroughDevices, machine: spec.name, user: users.device) {
                (name, descriptor) throws(ControlError) in try deposit(name, descriptor, spec, host)
            }
            for (index, device) in spec.settledDevices.enumerated() {
                let key = "devices[\(index)].\(device.spec.kind.rawValue)"
                switch device.spec {
                case .disk(let disk): try resources.addDisk(disk, index, key, spec, host, users.disk)
                case .net(let net):
                    for (queue, file) in try TapOpener.open(net, machine: spec.name, key: key).enumerated() {
                        try deposit(ManifestEntry.tap(device: index, queue: queue).name, file, spec, host)
                        resources.taps.append(Tap(device: index, queue: queue, file: file))
                    }
                case .console(let console):
                    for (place, port) in console.ports.enumerated() {
                        try resources.addPort(port, index, place, "\(key).ports[\(place)].socket", spec, host)
                    }
                case .rng, .vfio: break
                }
            }
        } catch {
            for port in resources.ports { port.listener.remove() }
            throw error
        }
        return resources
    }

    private mutating func addDisk(
        _ disk: DiskSpec, _ index: Int, _ key: String, _ spec: MachineSpec, _ host: Host,
        _ diskUser: @escaping DiskUser
    ) throws(ControlError) {
        // Two disks of one machine on one file are as much of a conflict as two machines.
        let earlier = disks
        let opener = DiskOpener(machine: spec.name, directories: host.configuration.diskDirectories) { identity in
            diskUser(identity) ?? earlier.first { $0.identity == identity }.map { (spec.name, $0.isWritable) }
        }
        let file = try opener.open(disk, key: key)
        try Self.deposit(ManifestEntry.disk(device: index, writable: true).name, file, spec, host)
        disks.append(Disk(device: index, file: file, identity: try? file.descriptor.identity(), isWritable: !disk.readOnly))
    }

    private mutating func addPort(
        _ port: PortsSpec.Port, _ index: Int, _ place: Int, _ key: String, _ spec: MachineSpec, _ host: Host
    ) throws(ControlError) {
        let names = PortNames(index, place)
        let listener = try SocketListener(path: port.socket, key: key)
        do {
            let pair = try UnixSocket.streamPair(buffer: MachineResources.streamBuffer)
            let ofWorker = pair.far
            let own = SharedDescriptor(pair.takeNear().takeDescriptor())
            for (name, descriptor) in [(names.worker, ofWorker), (names.own, own), (names.listener, listener.file)] {
                try Self.deposit(name, descriptor, spec, host)
            }
            ports.append(Port(device: index, port: place, ofWorker: ofWorker, own: own, listener: listener))
        } catch {
            listener.remove()
            throw error as? ControlError ?? .failed(reason: "\(error)")
        }
    }

    private static func deposit(_ name: String, _ descriptor: SharedDescriptor, _ spec: MachineSpec, _ host: Host) throws(ControlError) {
        do { try host.custody.put(CustodyKey(machine: spec.name, name: name), descriptor) } catch { throw .failed(reason: "\(error)") }
    }

    /// Takes everything back out of custody: the same open files, with their locks.
    static func adopt(_ spec: MachineSpec, custody: CustodyClient) throws -> Self {
        func get(_ name: String) throws(CustodyError) -> SharedDescriptor { try custody.get(CustodyKey(machine: spec.name, name: name)) }
        var resources = DeviceResources()
        resources.passthrough = try PassthroughResources.adopt(spec, custody: custody)
        for (index, device) in spec.settledDevices.enumerated() {
            switch device.spec {
            case .disk(let disk):
                let file = try get(ManifestEntry.disk(device: index, writable: true).name)
                resources.disks.append(
                    Disk(device: index, file: file, identity: try? file.descriptor.identity(), isWritable: !disk.readOnly))
            case .net(let net):
                for queue in 0..<(net.queues ?? 1) {
                    resources.taps.append(Tap(device: index, queue: queue, file: try get(ManifestEntry.tap(device: index, queue: queue).name)))
                }
            case .console(let console):
                for (place, port) in console.ports.enumerated() {
                    let names = PortNames(index, place)
                    resources.ports.append(
                        Port(
                            device: index, port: place, ofWorker: try get(names.worker), own: try get(names.own),
                            listener: SocketListener(path: port.socket, file: try get(names.listener))))
                }
            case .rng, .vfio: break
            }
        }
        return resources
    }

    /// What a worker is lent of it.
    var lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)] {
        disks.map { (ManifestEntry.disk(device: $0.device, writable: $0.isWritable), $0.file) }
            + taps.map { (ManifestEntry.tap(device: $0.device, queue: $0.queue), $0.file) }
            + ports.map { (ManifestEntry.consolePort(device: $0.device, port: $0.port), $0.ofWorker) }
            + passthrough.lease
    }

    /// Under which names a port is in custody.
    private struct PortNames {
        let worker: String, own: String, listener: String

        init(_ device: Int, _ port: Int) {
            worker = ManifestEntry.consolePort(device: device, port: port).name
            own = worker + "-own"
            listener = worker + "-listener"
        }
    }
}

extension DeviceResources {
    /// The devices of the machine with everything settled, also what this host settled.
    func settled(_ spec: MachineSpec) -> [Device] {
        spec.settledDevices.enumerated().map { index, device in
            guard case .vfio(var passed) = device.spec, let found = passthrough.specification(index) else { return device }
            passed.backend = found.backend == .container ? .container : .iommufd
            return Device(address: device.address, spec: .vfio(passed))
        }
    }

    /// The devices as workers are told of them.
    func specifications(of spec: MachineSpec) -> [DeviceSpecification] {
        spec.settledDevices.enumerated().map { index, device in
            switch device.spec {
            case .disk(let disk):
                .disk(DiskSpecification(readOnly: disk.readOnly, serial: disk.serial ?? "", queues: UInt16(clamping: disk.queues ?? 1)))
            case .net(let net):
                .network(
                    NetworkSpecification(
                        mac: net.mac.flatMap(MACAddress.bytes) ?? [], queuePairs: UInt16(clamping: net.queues ?? 1),
                        mtu: UInt16(clamping: net.mtu ?? NetSpec.defaultMTU)))
            case .console(let console): .console(ConsoleSpecification(ports: console.ports.map(\.name)))
            case .rng: .entropy
            case .vfio(let device):
                .passthrough(passthrough.specification(index) ?? VFIOSpecification(address: device.address, backend: .container, vectors: 0))
            }
        }
    }
}

extension MachineSpec {
    /// Whether a handover holds requests of the guest to anything outside of it.
    var holdsIO: Bool { !(devices ?? []).isEmpty }

    /// The masks of CPUs as workers are told of them: 64 CPUs a word.
    var affinityMasks: [[UInt64]] {
        (vcpuAffinity ?? []).map { cpus in
            var words = [UInt64](repeating: 0, count: (cpus.max() ?? 0) / 64 + 1)
            for cpu in cpus where cpu >= 0 { words[cpu / 64] |= 1 << UInt64(cpu % 64) }
            return words
        }
    }

    /// The sockets made for the machine.
    var socketPaths: [String] {
        let ports = (devices ?? []).flatMap { device in if case .console(let console) = device { console.ports.map(\.socket) } else { [String]() } }
        return [console?.socket].compactMap(\.self) + ports
    }
}
