internal import Control
internal import LinuxSystem

/// A device of this host that a guest could be given, as sysfs shows it: who drives it, what it cannot be told apart from.
struct HostDevice: Sendable {
    /// A PCI address, or the UUID of a mediated device.
    let address: String
    let isMediated: Bool
    let driver: String?
    /// Of the IOMMU; `nil`: there is none in front of it.
    let group: Int?
    /// VFIO plays the IOMMU: nothing keeps the device from any memory of the host.
    let hasNoIOMMU: Bool
    /// Under `/dev/vfio/devices`, if the kernel offers devices one by one.
    let node: String?
    /// What else is in its group.
    let peers: [Peer]

    struct Peer: Sendable, Equatable {
        let address: String
        let driver: String?
    }

    /// Where the kernel shows devices. Tests have a directory of their own.
    static let system = "/sys"

    /// `nil`: there is no such device.
    init?(_ spec: VFIOSpec, sysfs: String = system) {
        address = spec.address
        isMediated = spec.isMediated
        let directory = "\(sysfs)/bus/\(isMediated ? "mdev" : "pci")/devices"
        let path = "\(directory)/\(address)"
        guard FileSystem.exists(path) else { return nil }
        driver = Self.lastName(ofLink: path + "/driver")
        group = Self.lastName(ofLink: path + "/iommu_group").flatMap { Int($0) }
        // A mediated device has no IOMMU and needs none: its driver maps for it.
        hasNoIOMMU = !isMediated && (try? FileSystem.line(in: path + "/iommu_group/name")) == "vfio-noiommu"
        node = (try? FileSystem.names(in: path + "/vfio-dev"))?.first
        let members = (try? FileSystem.names(in: path + "/iommu_group/devices")) ?? []
        peers = members.filter { $0 != spec.address }.map { Peer(address: $0, driver: Self.lastName(ofLink: "\(directory)/\($0)/driver")) }
    }

    private static func lastName(ofLink path: String) -> String? {
        (try? FileSystem.target(ofLink: path))?.split(separator: "/").last.map(String.init)
    }

    /// Whether a driver of VFIO's has it.
    var isGivenAway: Bool { node != nil || driver.map(Self.isVFIO) ?? false }

    private static func isVFIO(_ driver: String) -> Bool { driver.contains("vfio") }

    /// Peers that a driver of the host uses. Bridges stay with theirs; they do no DMA of their own.
    private var peersInUse: [Peer] {
        peers.filter { peer in
            guard let driver = peer.driver else { return false }
            return !Self.isVFIO(driver) && driver != "pci-stub" && driver != "pcieport"
        }
    }

    /// What stands in the way of giving it to a guest, with what to do about it; empty: nothing. Lines that begin with `→ ` are advice.
    var obstacles: [String] {
        if hasNoIOMMU {
            return [
                "\(address): VFIO is in its no-IOMMU mode, in which the device reaches all memory of the host and nothing can be handed over",
                Self.adviceOnIOMMU,
            ]
        }
        guard group != nil else {
            return ["\(address): no IOMMU stands between the device and the host's memory", Self.adviceOnIOMMU]
        }
        if !isGivenAway {
            let whose = driver.map { "the driver \($0) of the host has it" } ?? "no driver has it"
            return ["\(address): \(whose), not vfio-pci", "→ \(Self.commands(address, driver))"]
        }
        return peersInUse.flatMap { peer in
            [
                "\(address): the IOMMU cannot tell it from \(peer.address), which the driver \(peer.driver ?? "") of the host has (group \(group ?? 0))",
                "→ \(Self.commands(peer.address, peer.driver))",
            ]
        }
    }

    private static let adviceOnIOMMU =
        "→ switch the IOMMU on (VT-d, AMD-Vi) in the firmware and on the kernel's command line (intel_iommu=on), and restart the host"

    /// What gives a PCI device to vfio-pci (Documentation/ABI/testing/sysfs-bus-pci).
    private static func commands(_ address: String, _ driver: String?) -> String {
        let devices = "/sys/bus/pci/devices/\(address)"
        let unbind = driver == nil ? "" : "echo \(address) > \(devices)/driver/unbind; "
        return "modprobe vfio-pci; echo vfio-pci > \(devices)/driver_override; \(unbind)echo \(address) > /sys/bus/pci/drivers_probe"
    }

    /// The PCI addresses of all devices that VFIO's drivers have.
    static func givenAway(sysfs: String = system) -> [HostDevice] {
        let addresses = (try? FileSystem.names(in: sysfs + "/bus/pci/devices")) ?? []
        return addresses.compactMap { HostDevice(VFIOSpec(address: $0), sysfs: sysfs) }.filter(\.isGivenAway)
    }
}
