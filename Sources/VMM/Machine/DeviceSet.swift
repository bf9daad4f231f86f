internal import Checkpoint
internal import Devices
internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// The devices of `baton-1` as its vCPUs and its session see them.
final class DeviceSet: Sendable {
    /// What the devices write and read in a checkpoint.
    static let sections: [Handover.SectionRange] = (PlatformState.sections + FunctionSet.sections).map {
        Handover.SectionRange(name: $0.name, writes: $0.writes, reads: $0.reads)
    }

    private let platform: PlatformDevices
    private let power: PowerRelay
    private let memoryBus: MMIOBus
    let functions: FunctionSet

    init(
        _ specifications: [DeviceSpecification], _ lent: LentResources, vm: VirtualMachine, memory: GuestMemory, machine: String
    ) throws(VMMError) {
        guard let console = lent.console else { throw VMMError("no console was lent") }
        let relay = PowerRelay()
        power = relay
        functions = try FunctionSet(specifications, lent.backings, vm: vm, memory: memory, machine: machine)
        memoryBus = MMIOBus(functions.windows)
        let bus = functions.bus
        platform = try doing("making the devices") { () throws(Errno) in
            try PlatformDevices(
                name: String(machine.prefix(7)) + "/devices", interrupts: KernelInterrupts(vm), power: relay, console: try Console(console),
                wide: [bus])
        }
    }

    /// Starts the devices' threads, parked. Whatever the guest asks of the power device goes to `handler`.
    func start(_ handler: @escaping @Sendable (GuestEnding) -> Void) throws(VMMError) {
        power.set(handler)
        try doing("starting the devices' thread") { () throws(Errno) in try platform.start() }
        try functions.start()
    }

    func handle(_ access: PortAccess, of vcpu: VCPU) {
        for index in 0..<access.count {
            if access.isWrite {
                platform.bus.write(vcpu.data(of: access, at: index), port: access.port, size: access.size)
            } else {
                vcpu.complete(access, at: index, with: platform.bus.read(port: access.port, size: access.size))
            }
        }
    }

    func handle(_ access: MemoryAccess, of vcpu: VCPU) {
        if access.isWrite {
            memoryBus.write(access.data, address: access.address, size: access.size)
        } else {
            vcpu.complete(access, with: memoryBus.read(address: access.address, size: access.size))
        }
    }

    /// The operator asks the guest to switch itself off.
    func requestPowerOff() { platform.power.askForPowerOff() }

    /// Devices stop acting on their own. Throws when one of them did not come to rest in time; then resume. Twice is once.
    func quiesce(within timeout: Duration) throws(VMMError) {
        let end = SystemClock.deadline(after: timeout)
        try functions.quiesce(until: end)
        // It only ever waits for a CPU to run on: a while, even if disks have used up the time.
        let left = max(end - SystemClock.monotonic(), Self.threadPatience)
        guard platform.quiesce(timeout: .nanoseconds(left)) else { throw VMMError("the devices' thread did not stop in time") }
    }

    private static let threadPatience: Int64 = 100_000_000

    /// What ``quiesce(within:)`` leaves for when the vCPUs have stopped: interrupt lines of passed-through devices.
    func stopInterrupts() { functions.stopInterrupts() }

    /// Interrupts of passed-through devices arrive again. Part of ``resume()``, and before the vCPUs run where they did not.
    func resumeInterrupts() { functions.resumeInterrupts() }

    /// Devices act on their own again.
    func resume() {
        platform.resume()
        functions.resume()
    }

    /// Ends the devices' threads.
    func finish() {
        functions.finish()
        platform.finish()
    }

    /// Writes a section for each device, quiet and with every vCPU parked.
    func save(into writer: inout CheckpointWriter, versions: PromisedVersions) {
        let versions = versions.forCheckpoint
        platform.state().save(to: &writer, versions: versions)
        functions.save(to: &writer, versions: versions)
    }

    /// Reads the state of all devices, or throws.
    func decode(_ reader: CheckpointReader) throws(CheckpointError) -> DecodedDevices {
        DecodedDevices(platform: try PlatformState(from: reader), restoreOthers: try functions.decode(reader))
    }

    /// Takes over a state. What the guest had asked for and nobody had done is returned.
    func restore(_ saved: DecodedDevices) -> GuestEnding? {
        platform.restore(saved.platform)
        saved.restoreOthers()
        return platform.power.request.map(GuestEnding.init)
    }
}

/// The state of all devices of one ``DeviceSet``, read whole.
struct DecodedDevices: Sendable {
    let platform: PlatformState
    let restoreOthers: @Sendable () -> Void
}

extension GuestEnding {
    fileprivate init(_ request: PowerRequest) {
        switch request {
        case .powerOff: self = .powerOff
        case .reset: self = .reset
        }
    }
}

/// Passes the guest's wish on to the machine, which is made after its devices.
private final class PowerRelay: PowerObserver {
    private let handler = Mutex<(@Sendable (GuestEnding) -> Void)?>(nil)
    func set(_ new: @escaping @Sendable (GuestEnding) -> Void) { handler.withLock { $0 = new } }
    func guestRequested(_ request: PowerRequest) { handler.withLock { $0 }?(GuestEnding(request)) }
}
