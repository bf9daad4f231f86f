internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import SystemPackage

/// What the kernel ties to a machine rather than to one of its workers: in custody from power-on to power-off.
struct MachineResources: Sendable {
    let machine: String
    let kvm: SharedDescriptor
    let memory: SharedDescriptor
    let commitWordFile: SharedDescriptor
    let commitWord: SharedWord
    /// The worker's end of the console stream.
    let consoleOfWorker: SharedDescriptor
    /// Our end of it.
    let console: SharedDescriptor
    let kernel: SharedDescriptor
    let initialRAMDisk: SharedDescriptor?
    /// Where clients of the serial console connect, if anywhere.
    let consoleListener: SocketListener?
    let devices: DeviceResources

    /// What a stream between guest and clients holds while nobody reads it.
    static let streamBuffer = 1 << 20

    private enum Name {
        static let kvm = "kvm", memory = "ram", commitWord = "commit-word", consoleOfWorker = "console-worker", console = "console"
        static let kernel = "kernel", initialRAMDisk = "initrd", consoleListener = "console-listener"
    }

    /// Opens and creates everything and deposits it. What was deposited before a failure is dropped again by the caller.
    ///
    /// `users`: who of this host has what a machine can have for itself only.
    static func acquire(
        _ spec: MachineSpec, host: Host, users: HostUsers
    ) throws(ControlError) -> MachineResources {
        try HugePages.require(spec.memory)
        let console = try failing("console") { () throws(Errno) in try UnixSocket.streamPair(buffer: streamBuffer) }
        let workerEnd = console.far
        let ownEnd = SharedDescriptor(console.takeNear().takeDescriptor())
        let created = (
            kvm: try failing("/dev/kvm") { () throws(Errno) in SharedDescriptor(try OwnedDescriptor.open("/dev/kvm", .readWrite)) },
            memory: try failing("guest memory") { () throws(Errno) in try guestMemory(spec.memory) },
            word: try failing("commit word") { () throws(Errno) in try sizedMemory(name: "commit-word", size: 4096) },
            kernel: try host.openBootFile(spec.boot.kernel, key: "boot.kernel"),
            initrd: try spec.boot.initrd.map { path throws(ControlError) in try host.openBootFile(path, key: "boot.initrd") }
        )
        let listener = try spec.console?.socket.map { path throws(ControlError) in try SocketListener(path: path, key: "console.socket") }
        let deposits: [(String, SharedDescriptor?)] = [
            (Name.kvm, created.kvm), (Name.memory, created.memory), (Name.commitWord, created.word), (Name.consoleOfWorker, workerEnd),
            (Name.console, ownEnd), (Name.kernel, created.kernel), (Name.initialRAMDisk, created.initrd),
            (Name.consoleListener, listener?.file),
        ]
        do throws(ControlError) {
            for case (let name, let descriptor?) in deposits {
                do { try host.custody.put(CustodyKey(machine: spec.name, name: name), descriptor) } catch { throw .failed(reason: "\(error)") }
            }
            return MachineResources(
                machine: spec.name, kvm: created.kvm, memory: created.memory, commitWordFile: created.word,
                commitWord: try failing("commit word") { () throws(Errno) in try mapWord(created.word) },
                consoleOfWorker: workerEnd, console: ownEnd, kernel: created.kernel, initialRAMDisk: created.initrd, consoleListener: listener,
                devices: try DeviceResources.acquire(spec, host: host, users: users))
        } catch {
            listener?.remove()
            throw error
        }
    }

    /// Takes the names of the machine's sockets away: nobody connects any more.
    func removeSockets() {
        consoleListener?.remove()
        for port in devices.ports { port.listener.remove() }
    }

    /// Takes everything of `machine` back out of custody, after a restart of the supervisor.
    static func adopt(_ spec: MachineSpec, custody: CustodyClient) throws -> MachineResources {
        let machine = spec.name
        func get(_ name: String) throws(CustodyError) -> SharedDescriptor { try custody.get(CustodyKey(machine: machine, name: name)) }
        let word = try get(Name.commitWord)
        return MachineResources(
            machine: machine, kvm: try get(Name.kvm), memory: try get(Name.memory), commitWordFile: word, commitWord: try mapWord(word),
            consoleOfWorker: try get(Name.consoleOfWorker), console: try get(Name.console), kernel: try get(Name.kernel),
            initialRAMDisk: try? get(Name.initialRAMDisk),
            consoleListener: try spec.console?.socket.map { path in SocketListener(path: path, file: try get(Name.consoleListener)) },
            devices: try DeviceResources.adopt(spec, custody: custody))
    }

    /// What a worker is lent, in the order in which it is sent.
    func lease(checkpoint: SharedDescriptor?) -> [(entry: ManifestEntry, descriptor: SharedDescriptor)] {
        var lease: [(ManifestEntry, SharedDescriptor)] = [
            (ManifestEntry(name: "kvm", kind: .kvm), kvm),
            (ManifestEntry(name: "ram", kind: .guestMemory), memory),
            (ManifestEntry(name: "commit-word", kind: .commitWord), commitWordFile),
            (ManifestEntry(name: "console", kind: .console), consoleOfWorker),
        ]
        if let checkpoint {
            lease.append((ManifestEntry(name: "checkpoint", kind: .checkpoint), checkpoint))
        }
        return lease + devices.lease
    }

    /// What a cold start is lent besides.
    func bootLease() -> [(entry: ManifestEntry, descriptor: SharedDescriptor)] {
        var lease = [(ManifestEntry(name: "kernel", kind: .bootFile, slot: 0, writable: false), kernel)]
        if let initialRAMDisk {
            lease.append((ManifestEntry(name: "initrd", kind: .bootFile, slot: 1, writable: false), initialRAMDisk))
        }
        return lease
    }

    /// A memfd of fixed size, of which pages are taken as they are touched.
    static func sizedMemory(name: String, size: Int) throws(Errno) -> SharedDescriptor {
        let memory = try MemoryDescriptor(name: name, size: size)
        try memory.sealSize()
        return SharedDescriptor(memory.takeDescriptor())
    }

    private static func guestMemory(_ spec: MemorySpec) throws(Errno) -> SharedDescriptor {
        let flags: UInt32 =
            switch spec.pages {
            case .small, .transparentHuge: MemoryDescriptor.executable
            case .huge2MiB: MemoryDescriptor.huge2MiB
            case .huge1GiB: MemoryDescriptor.huge1GiB
            }
        let memory = try MemoryDescriptor(name: "guest-ram", size: spec.sizeBytes, flags: flags)
        try memory.sealSize()
        return SharedDescriptor(memory.takeDescriptor())
    }

    private static func mapWord(_ descriptor: SharedDescriptor) throws(Errno) -> SharedWord {
        try SharedMapping(of: descriptor.descriptor, length: 4096).word(at: 0)
    }

    private static func failing<Value: ~Copyable>(_ what: String, _ body: () throws(Errno) -> Value) throws(ControlError) -> Value {
        do { return try body() } catch { throw .unavailable(feature: what, reason: "\(error)") }
    }
}
