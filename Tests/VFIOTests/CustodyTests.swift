import Control
import Handover
import KeeperTestSupport
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing
import VFIO

/// What the supervisor does with devices before any worker exists and after the last, with real ones.
@Suite(.serialized, .enabled(if: Lab.isHere, Comment(rawValue: Lab.reason))) struct PassthroughCustodyTests {
    static let backends: [VFIOSpec.Backend] = [.iommufd, .container]

    private func reasons(_ body: () throws -> Void) -> [String] {
        do { try body() } catch ControlError.refused(_, let reasons) { return reasons } catch { return ["\(error)"] }
        return []
    }

    @Test func aDeviceOfTheHostsIsRefusedWithCommandsThatWork() throws {
        LabDevice.giveBack(LabDevice.nvme)
        let refused = reasons { _ = try HeldDevices([VFIOSpec(address: LabDevice.nvme)]) }
        #expect(refused.first == "0000:00:05.0: the driver nvme of the host has it, not vfio-pci", "\(refused)")
        try LabDevice.prepare(LabDevice.nvme)
        let device = try #require(HostDevice(VFIOSpec(address: LabDevice.nvme)))
        #expect(device.driver == "vfio-pci" && device.node != nil && device.group != nil && device.obstacles.isEmpty)
        _ = try HeldDevices([VFIOSpec(address: LabDevice.nvme)])
    }

    @Test func aDeviceThatIsNotThereIsNamed() throws {
        #expect(throws: ControlError.self) { try HeldDevices([VFIOSpec(address: "0000:00:1e.0")]) }
    }

    @Test(arguments: backends) func devicesAreBoundAndHaveAnEventForEveryInterrupt(backend: VFIOSpec.Backend) throws {
        for address in [LabDevice.edu, LabDevice.nvme] { try LabDevice.prepare(address) }
        let held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend), VFIOSpec(address: LabDevice.nvme, backend: backend)])
        let (edu, nvme) = (held.resources.devices[0], held.resources.devices[1])
        #expect(try EducationalDevice(edu.file).identification == 0x0100_00ED)
        #expect(try EducationalDevice(edu.file).liveness(0x1234_5678) == ~0x1234_5678)
        #expect(try edu.file.interrupts(.msi).count == 1 && edu.file.interrupts(.intx).count == 1)
        #expect(edu.events.vectors.count == 1 && edu.events.unmask != nil)
        #expect(try nvme.events.vectors.count == nvme.file.interrupts(.msix).count && nvme.events.vectors.count > 2)
        #expect(edu.events.request != nil && nvme.events.request != nil)
        #expect(edu.events.errors == nil, "it is no PCI Express device")
        try nvme.file.trigger(.error)
        #expect(try count(#require(nvme.events.errors)) == 1)
        #expect((edu.group != nil) == (backend == .container) && (held.resources.container != nil) == (backend == .container))
        let bar = try nvme.file.region(.bar(0))
        #expect(bar.size >= 4096 && bar.isMSIXMappable && !bar.mappable.isEmpty)
        // The capabilities register says the same, mapped or read (NVM Express Base Specification, 3.1.4.1).
        try nvme.file.store(2, to: try nvme.file.region(.configuration), at: 4, width: 2)
        let mapped = try nvme.file.map(bar, 0...4095).copyOut(at: 0, count: 8)
        #expect(
            mapped == (try nvme.file.read(bar, at: 0, count: 4)) + (try nvme.file.read(bar, at: 4, count: 4))
                && mapped != [UInt8](repeating: 0xFF, count: 8))
        let kinds = Set(held.resources.lease.map(\.entry.kind))
        #expect(kinds.isSuperset(of: [.vfioDevice, .interruptEvent]) && kinds.contains(backend == .container ? .vfioContainer : .iommufd))
    }

    /// The next supervisor process finds the same open files; registers of the device show that nothing was reset.
    @Test(arguments: backends) func anotherSupervisorTakesThemOverAsTheyAre(backend: VFIOSpec.Backend) throws {
        try LabDevice.prepare(LabDevice.edu)
        var held: HeldDevices? = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend)])
        let (keeper, spec, lease) = try (#require(held).keeper, #require(held).spec, #require(held).resources.lease.map(\.entry))
        _ = try EducationalDevice(try #require(held).resources.devices[0].file).liveness(0x5555_0000)
        let specification = held?.resources.specification(0)
        held = nil
        let adopted = try PassthroughResources.adopt(spec, custody: keeper.client)
        #expect(adopted.lease.map(\.entry) == lease && adopted.specification(0) == specification)
        let device = adopted.devices[0]
        let registers = try device.file.region(.bar(0))
        #expect(try device.file.load(registers, at: 4, width: 4) == UInt64(~UInt32(0x5555_0000)))
        #expect(device.events.request != nil && device.events.vectors.count == 1)
    }

    @Test(arguments: backends) func aDeviceHasOneUser(backend: VFIOSpec.Backend) throws {
        try LabDevice.prepare(LabDevice.edu)
        let held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend)])
        for other in Self.backends {
            #expect(!reasons { _ = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: other)]) }.isEmpty, "\(backend), then \(other)")
        }
        withExtendedLifetime(held) {}
    }

    /// Devices of one machine by both back ends at once, each with memory of its own mapping.
    @Test func bothBackEndsServeOneMachine() throws {
        for address in [LabDevice.edu, LabDevice.nvme] { try LabDevice.prepare(address) }
        let held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: .container), VFIOSpec(address: LabDevice.nvme, backend: .iommufd)])
        #expect(held.resources.specification(0)?.backend == .container)
        #expect(held.resources.specification(1).map { $0.backend != .container } == true)
    }

    @Test(arguments: backends) func theHostAsksForADeviceAndGetsItWhenTheMachineEnds(backend: VFIOSpec.Backend) throws {
        try LabDevice.prepare(LabDevice.nvme)
        var held: HeldDevices? = try HeldDevices([VFIOSpec(address: LabDevice.nvme, backend: backend)])
        let request = try #require(held?.resources.devices[0].events.request)
        let done = "/tmp/unbound-\(backend.rawValue)"
        LabDevice.shell("{ echo \(LabDevice.nvme) > /sys/bus/pci/devices/\(LabDevice.nvme)/driver/unbind; touch \(done); } & true")
        #expect(try count(request) >= 1)
        // Nobody has it taken from him: the device answers, and who asked waits.
        #expect(try held?.resources.devices[0].file.information().isPCI == true)
        #expect(!FileSystem.exists(done))
        held = nil
        var tries = 0
        while !FileSystem.exists(done), tries < 200 {
            SystemClock.sleep(.milliseconds(50))
            tries += 1
        }
        #expect(FileSystem.exists(done))
        try LabDevice.prepare(LabDevice.nvme)
    }

    @Test(arguments: backends) func quietDevicesHaveNoInterruptsAndNoMemory(backend: VFIOSpec.Backend) throws {
        try LabDevice.prepare(LabDevice.edu)
        let held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend)])
        let device = held.resources.devices[0]
        let edu = try EducationalDevice(device.file)
        let memory = try guestMemory(4 << 20)
        let worker = try Peer()
        let layout = Peer.Layout(length: 2 << 20, count: 2)
        try map(held, worker, memory, layout)
        try device.file.arm(.msi, [device.events.vectors[0]])
        try edu.begin(.fromMemory, layout.iova, count: 64)
        #expect(try count(device.events.vectors[0]) == 1)
        #expect(held.resources.quieten() == [])
        #expect(worker.pinned == 0 || backend == .container)
        #expect(worker.locked == 0)
        #expect(try device.file.load(try device.file.region(.configuration), at: 4, width: 2) & 4 == 0)
        // As if new: armed and mapped once more.
        try device.file.arm(.msi, [device.events.vectors[0]])
        try map(held, worker, memory, layout)
        #expect(held.resources.quieten() == [])
        #expect(held.resources.quieten() == [])
    }

    private func map(_ held: HeldDevices, _ worker: Peer, _ memory: SharedDescriptor, _ layout: Peer.Layout) throws {
        if case .iommufd(let ioas) = held.resources.devices[0].backend {
            try worker.map(memory, layout, in: try #require(held.resources.iommufd), ioas)
        } else {
            try worker.map(memory, layout, in: try #require(held.resources.container))
        }
    }

    @Test func aMediatedDeviceGoesByIOMMUFDAndIsRefusedInAContainer() throws {
        LabDevice.shell("echo \(LabDevice.mediated) > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create")
        defer { LabDevice.shell("echo 1 > /sys/bus/mdev/devices/\(LabDevice.mediated)/remove") }
        let refused = reasons { _ = try HeldDevices([VFIOSpec(address: LabDevice.mediated, backend: .container)]) }
        #expect(refused.first?.contains("VFIO_UPDATE_VADDR") == true, "\(refused)")
        // The kernel agrees: with such a device in it, a container's addresses cannot be replaced.
        let container = try VFIOContainer.open()
        let group = try VFIOGroup.open(try #require(HostDevice(VFIOSpec(address: LabDevice.mediated))?.group))
        try group.join(container)
        try container.setIOMMU()
        #expect(!container.supports(.updateAddresses))
        #expect(throws: Errno.resourceBusy) { try container.voidAddresses() }
        try group.leaveContainer()
        withExtendedLifetime((container, group)) {}
    }

    @Test func aMediatedDeviceIsHeldByIOMMUFD() throws {
        LabDevice.shell("echo \(LabDevice.mediated) > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create")
        defer { LabDevice.shell("echo 1 > /sys/bus/mdev/devices/\(LabDevice.mediated)/remove") }
        var held: HeldDevices? = try HeldDevices([VFIOSpec(address: LabDevice.mediated)])
        let device = try #require(held?.resources.devices.first)
        #expect(device.backend != .container)
        #expect(try device.file.information().isPCI)
        #expect(try device.file.load(try device.file.region(.configuration), at: 0, width: 4) == 0x3253_4348)  // "HC2S"
        #expect(device.events.vectors.count == 1)
        held = nil
    }
}
