import Channel
import GuestMemory
import Handover
import LinuxSystem
import Synchronization
import SystemPackage
import Testing
import Wire

@testable import VMM

/// What this machine can do.
enum Host {
    static let hasKVM = (try? OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true)) != nil
    static let guest = root + "/out/guest/heartbeat.elf"
    static let images = root + "/out/images"
    static let hasImages = (try? OwnedDescriptor.open(images + "/baton-vmm-next", followingLinks: true)) != nil
    static let hasGuest = (try? OwnedDescriptor.open(guest, followingLinks: true)) != nil

    /// The repository.
    static let root: String = {
        var parts = #filePath.split(separator: "/")
        parts.removeLast(3)
        return "/" + parts.joined(separator: "/")
    }()
}

/// One machine's resources, as a supervisor holds them, and workers that run it.
final class Bench {
    let memory: Int
    let vcpus: UInt32
    let ram: SharedDescriptor
    let wordMemory: SharedDescriptor
    let checkpoint: SharedDescriptor
    let console: SharedDescriptor
    let word: SharedWord
    let evidence: SharedMapping
    let machineID = MachineID.random()
    let devices: [DeviceSpecification]
    /// What is behind the devices, and the far ends of console ports.
    private var backings: [(entry: ManifestEntry, descriptor: SharedDescriptor)] = []
    private(set) var ports: [SharedDescriptor] = []

    init(memory: Int = 32 << 20, vcpus: UInt32 = 1, devices: [DeviceSpecification] = []) throws {
        self.memory = memory
        self.vcpus = vcpus
        self.devices = devices
        ram = try Self.memory("ram", memory)
        wordMemory = try Self.memory("commit-word", 4096)
        checkpoint = try Self.memory("checkpoint", 1 << 20)
        console = try Self.memory("console", 0)
        word = try SharedMapping(of: wordMemory.descriptor, length: 4096).word(at: 0)
        evidence = try SharedMapping(of: ram.descriptor, length: memory)
        for (index, device) in devices.enumerated() { try back(device, index) }
    }

    private func back(_ device: DeviceSpecification, _ index: Int) throws {
        switch device {
        case .console(let console):
            for port in console.ports.indices {
                let pair = try UnixSocket.streamPair()
                ports.append(pair.far)
                backings.append((.consolePort(device: index, port: port), SharedDescriptor(pair.takeNear().takeDescriptor())))
            }
        case .disk, .network, .entropy, .passthrough: break
        }
    }

    /// Puts a descriptor behind a device.
    func back(_ entry: ManifestEntry, with descriptor: SharedDescriptor) { backings.append((entry, descriptor)) }

    private static func memory(_ name: String, _ size: Int) throws -> SharedDescriptor {
        SharedDescriptor(try MemoryDescriptor(name: name, size: size).takeDescriptor())
    }

    var guest: Evidence { Evidence(ram: evidence, vcpus: Int(vcpus)) }

    /// A digest of all guest memory; holes count as the zeros they read as.
    func digest() throws -> UInt64 {
        GuestMemory(GuestMemoryLayout(size: memory), mapping: evidence).digest(try ram.descriptor.dataExtents())
    }

    /// What the guest wrote to its console.
    var output: String {
        String(decoding: (try? console.descriptor.read(upTo: 1 << 20, at: 0)) ?? [], as: UTF8.self)
    }

    func waitForOutput(_ text: String, within timeout: Duration = .seconds(10)) -> Bool {
        let end = SystemClock.monotonic() + timeout.nanoseconds
        while SystemClock.monotonic() < end {
            if output.contains(text) { return true }
            SystemClock.sleep(.milliseconds(10))
        }
        return false
    }

    func specification(_ commandLine: String) -> StartSpecification {
        StartSpecification(
            machineID: machineID.bytes, name: "test", vcpus: vcpus, memory: UInt64(memory), commandLine: commandLine, devices: devices)
    }

    /// Lends everything a worker may have.
    func lend(to worker: Worker, kernel path: String = Host.guest, initialRAMDisk: [UInt8]? = nil) throws {
        let kvm = SharedDescriptor(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        let kernel = SharedDescriptor(try OwnedDescriptor.open(path, followingLinks: true))
        var entries = [
            ManifestEntry(name: "kvm", kind: .kvm), ManifestEntry(name: "ram", kind: .guestMemory),
            ManifestEntry(name: "commit-word", kind: .commitWord), ManifestEntry(name: "checkpoint", kind: .checkpoint),
            ManifestEntry(name: "console", kind: .console), ManifestEntry(name: "kernel", kind: .bootFile, writable: false),
        ]
        var descriptors = [kvm, ram, wordMemory, checkpoint, console, kernel]
        if let initialRAMDisk {
            entries.append(ManifestEntry(name: "initrd", kind: .bootFile, slot: 1, writable: false))
            let file = try Self.memory("initrd", 0)
            try file.descriptor.writeAll(initialRAMDisk)
            descriptors.append(file)
        }
        entries += backings.map(\.entry)
        descriptors += backings.map(\.descriptor)
        let report = try worker.order(.lend(entries: entries, total: UInt32(entries.count)), descriptors: descriptors)
        try #require(report == .lent(held: UInt32(entries.count)))
    }

    /// A worker on threads of this process.
    func worker(
        generation: UInt32, image: WorkerImage = WorkerImage(version: "test"), failpoints: Failpoints = .none, kernel: String = Host.guest,
        initialRAMDisk: [UInt8]? = nil
    ) throws -> Worker {
        let worker = try Worker(generation: generation, image: image, failpoints: failpoints)
        try lend(to: worker, kernel: kernel, initialRAMDisk: initialRAMDisk)
        return worker
    }

    /// A worker process of one of the built images.
    func process(_ image: String, generation: UInt32) throws -> Worker {
        let file = try OwnedDescriptor.open(Host.images + "/" + image, followingLinks: true)
        let worker = try Worker(generation: generation, executing: file)
        try lend(to: worker)
        return worker
    }

    /// A worker that has powered the machine on.
    func powerOn(_ commandLine: String = "", generation: UInt32 = 1) throws -> Worker {
        try powerOn(try worker(generation: generation), commandLine)
    }

    func powerOn(_ worker: Worker, _ commandLine: String = "") throws -> Worker {
        let report = try worker.order(.start(specification(commandLine + " vcpus=\(vcpus)")), timeout: .seconds(10))
        guard case .running = report else { throw VMMError("\(report)") }
        return worker
    }
}

/// The supervisor's end of one worker.
final class Worker {
    let generation: UInt32
    let channel: WorkerChannel
    private(set) var identity: WorkerIdentity?
    private var sequence: UInt32 = 0
    private var thread: SystemThread?
    private var process: ProcessDescriptor?
    private(set) var unasked: [Report] = []

    /// In this process.
    init(generation: UInt32, image: WorkerImage, failpoints: Failpoints) throws {
        self.generation = generation
        let pair = try UnixSocket.sequencedPair()
        let number = try pair.far.descriptor.duplicate().relinquish()
        channel = WorkerChannel(pair.takeNear())
        try SystemThread.installKickHandler()
        thread = try SystemThread(name: "worker\(generation)") {
            if let socket = UnixSocket.inherited(number) { WorkerMain.serve(socket, image, generation: generation, failpoints) }
        }
        try hello()
    }

    /// In a process of its own.
    init(generation: UInt32, executing image: borrowing OwnedDescriptor) throws {
        self.generation = generation
        let pair = try UnixSocket.sequencedPair()
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", .readWrite))
        let request = SpawnRequest(arguments: ["baton-vmm", "--generation", "\(generation)"], descriptors: [null, null, null, pair.far])
        channel = WorkerChannel(pair.takeNear())
        process = try request.spawn(executing: image).takeProcess()
        try hello()
    }

    private func hello() throws {
        let first = try channel.receive(timeout: .seconds(5))
        guard case .hello(let identity) = first.message.body else { throw VMMError("no hello") }
        self.identity = identity
    }

    /// Gives an order and waits for its answer.
    func order(
        _ order: Order, descriptors: [SharedDescriptor] = [], timeout: Duration = .seconds(20), generation: UInt32? = nil
    ) throws -> Report {
        sequence += 1
        try channel.send(order, generation: generation ?? self.generation, sequence: sequence, descriptors: descriptors)
        return try answer(timeout)
    }

    /// Brings its devices to rest.
    func settle(within hold: UInt64 = 5_000_000_000) throws {
        let report = try order(.settle(holdNanoseconds: hold))
        guard case .settled(let began, let drained) = report, began <= drained else { throw VMMError("\(report)") }
    }

    /// Gives an order under the number of the one before.
    func repeatOrder(_ order: Order) throws -> Report {
        try channel.send(order, generation: generation, sequence: sequence)
        return try answer(.seconds(20))
    }

    private func answer(_ timeout: Duration) throws -> Report {
        while true {
            let received = try channel.receive(timeout: timeout)
            if received.message.envelope.sequence == sequence { return received.message.body }
            unasked.append(received.message.body)
        }
    }

    /// The next report that nobody asked for.
    func next(timeout: Duration = .seconds(5)) throws -> Report {
        if !unasked.isEmpty { return unasked.removeFirst() }
        return try channel.receive(timeout: timeout).message.body
    }

    deinit { try? retire() }

    func retire() throws {
        if thread == nil && process == nil { return }
        sequence += 1
        try channel.send(.retire, generation: generation, sequence: sequence)
        thread?.join()
        thread = nil
        if process != nil { _ = process!.waitForEnd(timeout: .seconds(10)) }
        if process != nil { _ = process!.reap() }
        process = nil
    }
}

/// Times of one handover, CLOCK_MONOTONIC nanoseconds.
struct Timeline {
    var parkBegan: Int64 = 0
    var parked: Int64 = 0
    var saved: Int64 = 0
    var loadBegan: Int64 = 0
    var loaded: Int64 = 0
    var granted: Int64 = 0
    var firstRun: Int64 = 0

    var line: String {
        func us(_ from: Int64, _ to: Int64) -> String { "\((to - from) / 1000)" }
        return "park \(us(parkBegan, parked)) save \(us(parked, saved)) hop \(us(saved, loadBegan)) load \(us(loadBegan, loaded)) "
            + "commit \(us(loaded, granted)) run \(us(granted, firstRun)) total \(us(parkBegan, firstRun)) µs"
    }
}

extension Bench {
    func blueprint(of outgoing: Worker, for incoming: Worker) throws -> [UInt8] {
        let agreement = SectionAgreement(
            outgoing: outgoing.identity?.sections ?? [], incoming: incoming.identity?.sections ?? [], outgoingVersion: "outgoing",
            incomingVersion: "incoming")
        let report = try outgoing.order(.exportBlueprint(versions: agreement.versions))
        guard case .blueprint(let blueprint) = report else { throw VMMError("\(report)") }
        return blueprint
    }

    /// The incoming worker builds the machine.
    func prepare(_ outgoing: Worker, _ incoming: Worker) throws {
        let report = try incoming.order(.prepare(blueprint: try blueprint(of: outgoing, for: incoming)))
        guard case .prepared = report else { throw VMMError("\(report)") }
    }

    /// Both workers practise, the incoming one with the vCPUs' state that the outgoing one's practice has left.
    func practise(_ outgoing: Worker, _ incoming: Worker) throws {
        guard case .practised(let cpu) = try outgoing.order(.practise(cpu: nil)) else { throw VMMError("the outgoing worker did not practise") }
        guard case .practised = try incoming.order(.practise(cpu: cpu)) else { throw VMMError("the incoming worker did not practise") }
    }

    /// One handover from worker to worker, as a supervisor drives it.
    func handOver(from outgoing: Worker, to incoming: Worker, practising: Bool = false) throws -> Timeline {
        try prepare(outgoing, incoming)
        if practising { try practise(outgoing, incoming) }
        return try handOverPrepared(from: outgoing, to: incoming)
    }

    /// What follows when both are ready.
    func handOverPrepared(from outgoing: Worker, to incoming: Worker) throws -> Timeline {
        try outgoing.settle()
        var times = Timeline()
        let saved = try outgoing.order(.save(freezeNanoseconds: 10_000_000_000))
        guard case .saved(let length, let digest, let parkBegan, let parked, let savedAt) = saved else { throw VMMError("\(saved)") }
        let loaded = try incoming.order(.load(length: length, digest: digest))
        guard case .loaded(let loadBegan, let loadedAt) = loaded else { throw VMMError("\(loaded)") }
        let frozen = CommitWord(.frozen, outgoing.generation).rawValue
        guard word.exchange(expected: frozen, desired: CommitWord(.committed, incoming.generation).rawValue).exchanged else {
            throw VMMError("the commit was lost")
        }
        let running = try incoming.order(.grant)
        guard case .running(let granted, let firstRun) = running else { throw VMMError("\(running)") }
        times = Timeline(
            parkBegan: parkBegan, parked: parked, saved: savedAt, loadBegan: loadBegan, loaded: loadedAt, granted: granted, firstRun: firstRun)
        return times
    }
}
