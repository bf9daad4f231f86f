internal import Control
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// By which interface of the kernel a device's memory is mapped, chosen once, as the machine starts.
enum DMABackend: Sendable, Equatable {
    case iommufd
    case container

    /// What this host's iommufd can do.
    enum Support: Sendable, Equatable {
        case full
        /// Mappings cannot be taken over by another process: before Linux 6.13.
        case withoutTakeover
        case absent(Errno)
    }

    /// Asks a fresh iommufd, which has nothing that another process could own.
    static func support() -> Support {
        do throws(Errno) {
            return try IOMMUFD.open().canChangeProcess ? .full : .withoutTakeover
        } catch {
            return .absent(error)
        }
    }

    /// The back end for `device`, or why there is none.
    static func choose(_ wanted: VFIOSpec.Backend, for device: HostDevice, _ support: Support, machine: String) throws(ControlError) -> DMABackend {
        let missing: [String]
        switch support {
        case .absent(let errno): missing = ["/dev/iommu: \(errno)"]
        case .withoutTakeover: missing = ["this kernel's iommufd cannot pass mappings on to another process (IOMMU_IOAS_CHANGE_PROCESS, Linux 6.13)"]
        case .full where device.node == nil:
            missing = ["\(device.address): the kernel does not offer it under /dev/vfio/devices (CONFIG_VFIO_DEVICE_CDEV)"]
        case .full: missing = []
        }
        switch wanted {
        case .iommufd,
            .auto where missing.isEmpty:
            if missing.isEmpty { return .iommufd }
            throw .refused(machine: machine, reasons: missing + ["→ use backend: container, or auto"])
        case .auto where device.isMediated:
            throw .refused(machine: machine, reasons: missing + ["\(device.address): a mediated device needs iommufd", "→ use a newer kernel"])
        case .container where device.isMediated:
            throw .refused(
                machine: machine,
                reasons: [
                    "\(device.address): with a mediated device in it, a container lets no other process take its mappings over (VFIO_UPDATE_VADDR)",
                    "→ use backend: iommufd, or auto",
                ])
        case .auto, .container: return .container
        }
    }
}
