import Control
import Glibc
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing

/// A directory that looks like sysfs, with the devices a test puts there.
private struct Sysfs {
    let path = "/tmp/baton-sysfs-\(FileSystem.randomBytes(6).map { String($0, radix: 16) }.joined())"

    func device(_ address: String, bus: String = "pci", driver: String?, group: Int?, node: String? = nil, groupName: String? = nil) throws {
        let device = "\(path)/bus/\(bus)/devices/\(address)"
        try FileSystem.createDirectory(device)
        if let driver { try link(device + "/driver", to: "../../drivers/\(driver)") }
        if let node { try FileSystem.createDirectory("\(device)/vfio-dev/\(node)") }
        guard let group else { return }
        let members = "\(path)/kernel/iommu_groups/\(group)"
        try FileSystem.createDirectory("\(members)/devices/\(address)")
        if let groupName { try OwnedDescriptor.open(members + "/name", .replace).writeAll(Array((groupName + "\n").utf8)) }
        try link(device + "/iommu_group", to: "../../../../kernel/iommu_groups/\(group)")
    }

    private func link(_ name: String, to target: String) throws {
        if unsafe symlink(target, name) != 0 { throw Errno(rawValue: errno) }
    }

    func obstacles(_ address: String) -> [String]? { HostDevice(VFIOSpec(address: address), sysfs: path)?.obstacles }
}

@Suite struct HostDeviceTests {
    private let sysfs = Sysfs()

    @Test func aDeviceThatIsNotThereIsNone() { #expect(sysfs.obstacles("0000:06:00.0") == nil) }

    @Test func aDeviceOfVFIOWithAGroupOfItsOwnIsReady() throws {
        try sysfs.device("0000:06:00.0", driver: "vfio-pci", group: 7, node: "vfio3")
        let device = try #require(HostDevice(VFIOSpec(address: "0000:06:00.0"), sysfs: sysfs.path))
        #expect(device.obstacles.isEmpty && device.group == 7 && device.node == "vfio3" && device.peers.isEmpty)
    }

    @Test func aVariantDriverWillDoAsWell() throws {
        try sysfs.device("0000:06:00.0", driver: "mlx5_vfio_pci", group: 7)
        #expect(sysfs.obstacles("0000:06:00.0") == [])
    }

    @Test func aDeviceOfTheHostsComesWithTheCommandsThatGiveItAway() throws {
        try sysfs.device("0000:06:00.0", driver: "nvme", group: 7)
        let obstacles = try #require(sysfs.obstacles("0000:06:00.0"))
        #expect(obstacles.first == "0000:06:00.0: the driver nvme of the host has it, not vfio-pci")
        let advice = try #require(obstacles.last)
        #expect(advice.hasPrefix("→ ") && advice.contains("driver_override") && advice.contains("driver/unbind") && advice.contains("drivers_probe"))
        try sysfs.device("0000:07:00.0", driver: nil, group: 8)
        #expect(sysfs.obstacles("0000:07:00.0")?.last?.contains("unbind") == false)
    }

    @Test func whatTheIOMMUCannotTellApartGoesTogether() throws {
        try sysfs.device("0000:06:00.0", driver: "vfio-pci", group: 7)
        try sysfs.device("0000:06:00.1", driver: "e1000e", group: 7)
        try sysfs.device("0000:06:00.2", driver: nil, group: 7)
        try sysfs.device("0000:00:1c.0", driver: "pcieport", group: 7)
        let obstacles = try #require(sysfs.obstacles("0000:06:00.0"))
        #expect(obstacles.count == 2 && obstacles[0].contains("0000:06:00.1, which the driver e1000e"))
        #expect(obstacles[1].contains("/sys/bus/pci/devices/0000:06:00.1/driver/unbind"))
    }

    @Test func aDeviceWithoutAnIOMMUIsRefused() throws {
        try sysfs.device("0000:06:00.0", driver: "vfio-pci", group: nil)
        #expect(sysfs.obstacles("0000:06:00.0")?.first?.contains("no IOMMU stands between") == true)
    }

    @Test func theModeWithoutAnIOMMUIsRefused() throws {
        try sysfs.device("0000:06:00.0", driver: "vfio-pci", group: 0, groupName: "vfio-noiommu")
        #expect(sysfs.obstacles("0000:06:00.0")?.first?.contains("no-IOMMU mode") == true)
    }

    /// Its driver maps for it, and the kernel names the group of every such device as it does in the mode without an IOMMU.
    @Test func aMediatedDeviceNeedsNoIOMMU() throws {
        let uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
        try sysfs.device(uuid, bus: "mdev", driver: "vfio_mtty", group: 9, node: "vfio0", groupName: "vfio-noiommu")
        #expect(sysfs.obstacles(uuid) == [])
    }

    @Test func onlyDevicesOfVFIOAreListed() throws {
        try sysfs.device("0000:06:00.0", driver: "vfio-pci", group: 7)
        try sysfs.device("0000:05:00.0", driver: "nvme", group: 6)
        #expect(HostDevice.givenAway(sysfs: sysfs.path).map(\.address) == ["0000:06:00.0"])
    }
}

@Suite struct DMABackendTests {
    private func choose(
        _ wanted: VFIOSpec.Backend, mediated: Bool = false, node: Bool = true, _ support: DMABackend.Support
    ) throws -> DMABackend {
        let sysfs = Sysfs()
        let address = mediated ? "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001" : "0000:06:00.0"
        try sysfs.device(address, bus: mediated ? "mdev" : "pci", driver: "vfio-pci", group: 7, node: node ? "vfio0" : nil)
        let device = try #require(HostDevice(VFIOSpec(address: address), sysfs: sysfs.path))
        return try DMABackend.choose(wanted, for: device, support, machine: "web1")
    }

    @Test func whatIsAskedForIsTakenOrRefused() throws {
        #expect(try choose(.iommufd, .full) == .iommufd)
        #expect(try choose(.container, .full) == .container)
        #expect(throws: ControlError.self) { try choose(.iommufd, .withoutTakeover) }
        #expect(throws: ControlError.self) { try choose(.iommufd, .absent(.noSuchFileOrDirectory)) }
        #expect(throws: ControlError.self) { try choose(.iommufd, node: false, .full) }
    }

    @Test func autoFallsBackToAContainer() throws {
        #expect(try choose(.auto, .full) == .iommufd)
        #expect(try choose(.auto, .withoutTakeover) == .container)
        #expect(try choose(.auto, .absent(.permissionDenied)) == .container)
        #expect(try choose(.auto, node: false, .full) == .container)
    }

    @Test func aMediatedDeviceGoesByIOMMUFDOnly() throws {
        #expect(try choose(.auto, mediated: true, .full) == .iommufd)
        let error = #expect(throws: ControlError.self) { try choose(.container, mediated: true, .full) }
        guard case .refused(_, let reasons)? = error else { return }
        #expect(reasons[0].contains("VFIO_UPDATE_VADDR") && reasons[1].contains("iommufd"))
        #expect(throws: ControlError.self) { try choose(.auto, mediated: true, .withoutTakeover) }
    }
}
