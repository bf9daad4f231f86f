import Control
import Glibc
import Handover
import Keeper
import KeeperTestSupport
import LinuxSystem
@testable import Supervisor
import SystemPackage
import VFIO

/// The devices of the suite's lab (lab/suites/vfio), and what an operator does with them.
enum LabDevice {
    static let edu = "0000:00:06.0"
    static let nvme = "0000:00:05.0"
    static let mediated = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

    /// Does what the refusal advises, word for word, until nothing stands in the way.
    static func prepare(_ address: String) throws {
        for _ in 0..<3 {
            let obstacles = HostDevice(VFIOSpec(address: address))?.obstacles ?? []
            guard let advice = obstacles.first(where: { $0.hasPrefix("→ ") }) else { return }
            shell(String(advice.dropFirst(2)))
        }
    }

    /// Gives it back to whatever driver the host has for it.
    static func giveBack(_ address: String) {
        shell("echo > /sys/bus/pci/devices/\(address)/driver_override; echo \(address) > /sys/bus/pci/devices/\(address)/driver/unbind")
        shell("echo \(address) > /sys/bus/pci/drivers_probe")
    }

    @discardableResult
    static func shell(_ command: String) -> CInt { unsafe system("{ \(command); } 2>/dev/null") }
}

/// Devices in the custody of a supervisor, without any machine: what the opener leaves for workers.
struct HeldDevices {
    let keeper: TestKeeper
    let spec: MachineSpec
    let resources: PassthroughResources

    static func spec(_ devices: [VFIOSpec]) -> MachineSpec {
        MachineSpec(
            name: "web1", vcpus: 1, memory: MemorySpec(sizeBytes: 64 << 20), boot: BootSpec(kernel: "/k"), devices: devices.map(DeviceSpec.vfio))
    }

    init(_ devices: [VFIOSpec]) throws {
        let (keeper, spec) = (try TestKeeper(), Self.spec(devices))
        resources = try PassthroughOpener.open(spec.passthroughDevices, machine: spec.name, user: { _ in nil }) {
            (name, descriptor) throws(ControlError) in
            do { try keeper.client.put(CustodyKey(machine: spec.name, name: name), descriptor) } catch { throw .failed(reason: "\(error)") }
        }
        (self.keeper, self.spec) = (keeper, spec)
    }
}

/// QEMU's `edu`, by its registers (QEMU, docs/specs/edu.rst): a device that copies, 100 ms after it was told to.
struct EducationalDevice {
    let device: VFIODevice
    let registers: VFIORegion
    private static let buffer: UInt64 = 0x40000

    init(_ device: VFIODevice) throws {
        self.device = device
        registers = try device.region(.bar(0))
        // Memory and bus mastering on, as a guest's driver would.
        try device.store(6, to: try device.region(.configuration), at: 4, width: 2)
    }

    var identification: UInt64 { get throws { try device.load(registers, at: 0, width: 4) } }

    /// Answers with the complement of what is written.
    func liveness(_ value: UInt32) throws -> UInt32 {
        try device.store(UInt64(value), to: registers, at: 4, width: 4)
        return UInt32(try device.load(registers, at: 4, width: 4))
    }

    enum Direction: UInt64 { case fromMemory = 0, toMemory = 2 }

    /// Begins to copy between its buffer and memory at `iova`, which must be below 256 MiB; with an interrupt at the end.
    func begin(_ direction: Direction, _ iova: UInt64, count: Int) throws {
        try device.store(direction == .fromMemory ? iova : Self.buffer, to: registers, at: 0x80, width: 4)
        try device.store(direction == .fromMemory ? Self.buffer : iova, to: registers, at: 0x88, width: 4)
        try device.store(UInt64(count), to: registers, at: 0x90, width: 4)
        try device.store(1 | direction.rawValue | 4, to: registers, at: 0x98, width: 4)
    }

    var isBusy: Bool { get throws { try device.load(registers, at: 0x98, width: 4) & 1 != 0 } }

    /// Takes the interrupt's reason away, as its handler does.
    func acknowledge() throws {
        try device.store(try device.load(registers, at: 0x24, width: 4), to: registers, at: 0x64, width: 4)
    }
}

/// What an eventfd counts once it counts anything, and a while after.
func count(_ event: SharedDescriptor, within limit: Duration = .seconds(5)) throws -> UInt64 {
    guard try Poll.one(event.number, timeout: limit) else { return 0 }
    SystemClock.sleep(.milliseconds(150))
    return try event.descriptor.read(upTo: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
}
