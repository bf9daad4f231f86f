internal import Checkpoint
internal import Devices
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// The devices of `baton-1` as its vCPUs and its session see them.
final class DeviceSet: Sendable {
    /// What the devices write and read in a checkpoint.
    static let sections: [Handover.SectionRange] = PlatformState.sections.map {
        Handover.SectionRange(name: $0.name, writes: $0.writes, reads: $0.reads)
    }

    private let platform: PlatformDevices
    private let power: PowerRelay

    init(vm: VirtualMachine, console: SharedDescriptor?, machine: String) throws(VMMError) {
        guard let console else { throw VMMError("no console was lent") }
        let relay = PowerRelay()
        power = relay
        platform = try doing("making the devices") { () throws(Errno) in
            try PlatformDevices(
                name: String(machine.prefix(7)) + "/devices", interrupts: KernelInterrupts(vm), power: relay, console: try Console(console))
        }
    }

    /// Starts the devices' thread, parked. Whatever the guest asks of the power device goes to `handler`.
    func start(_ handler: @escaping @Sendable (GuestEnding) -> Void) throws(VMMError) {
        power.set(handler)
        try doing("starting the devices' thread") { () throws(Errno) in try platform.start() }
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

    /// No device of this model is in memory but those in the kernel: reads give ones, writes are lost.
    func handle(_ access: MemoryAccess, of vcpu: VCPU) {
        if !access.isWrite { vcpu.complete(access, with: .max) }
    }

    /// The operator asks the guest to switch itself off.
    func requestPowerOff() { platform.power.askForPowerOff() }

    /// Devices stop acting on their own; `false` when their thread did not stop in time. Twice is once.
    func quiesce(within timeout: Duration = .milliseconds(100)) -> Bool { platform.quiesce(timeout: timeout) }

    /// Devices act on their own again.
    func resume() { platform.resume() }

    /// Ends the devices' thread.
    func finish() { platform.finish() }

    /// Writes a section for each device, quiet and with every vCPU parked.
    func save(into writer: inout CheckpointWriter, versions: PromisedVersions) {
        platform.state().save(to: &writer, versions: versions.forCheckpoint)
    }

    /// Takes over a state. What the guest had asked for and nobody had done is returned.
    func restore(_ saved: PlatformState) -> GuestEnding? {
        platform.restore(saved)
        return platform.power.request.map(GuestEnding.init)
    }
}

extension GuestEnding {
    fileprivate init(_ request: PowerRequest) {
        switch request {
        case .powerOff: self = .powerOff
        case .reset: self = .reset
        }
    }
}

/// Device interrupts as levels of the in-kernel controllers' pins.
private final class KernelInterrupts: InterruptController {
    private let vm: VirtualMachine
    init(_ vm: VirtualMachine) { self.vm = vm }

    // KVM_IRQ_LINE fails only for a pin that does not exist, which would be a defect of the model.
    func setLevel(_ high: Bool, gsi: UInt32) { try? vm.setInterruptLine(gsi, high: high) }
}

/// Passes the guest's wish on to the machine, which is made after its devices.
private final class PowerRelay: PowerObserver {
    private let handler = Mutex<(@Sendable (GuestEnding) -> Void)?>(nil)
    func set(_ new: @escaping @Sendable (GuestEnding) -> Void) { handler.withLock { $0 = new } }
    func guestRequested(_ request: PowerRequest) { handler.withLock { $0 }?(GuestEnding(request)) }
}
