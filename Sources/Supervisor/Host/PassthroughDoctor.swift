internal import Control
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// Looks at what passed-through devices need of this host, and at every device that was given to VFIO for it.
struct PassthroughDoctor {
    let host: Host
    var sysfs = HostDevice.system

    func examine() -> [Check] {
        let devices = HostDevice.givenAway(sysfs: sysfs)
        return [iommu, iommufd, container] + (devices.isEmpty ? [none] : devices.map(check))
    }

    private var iommu: Check {
        let groups = (try? FileSystem.names(in: sysfs + "/kernel/iommu_groups"))?.count ?? 0
        return groups > 0
            ? Check(name: "iommu", verdict: .ok, detail: "\(groups) groups")
            : Check(
                name: "iommu", verdict: .missing,
                detail: "no device can be passed through: switch it on in the firmware (VT-d, AMD-Vi) and for the kernel (intel_iommu=on)")
    }

    private var iommufd: Check {
        switch DMABackend.support() {
        case .full: Check(name: IOMMUFD.path, verdict: .ok, detail: "mappings can be passed on from worker to worker")
        case .withoutTakeover:
            Check(
                name: IOMMUFD.path, verdict: .warning,
                detail: "no IOMMU_IOAS_CHANGE_PROCESS (Linux 6.13): devices are passed through by containers instead")
        case .absent(.noSuchFileOrDirectory):
            Check(
                name: IOMMUFD.path, verdict: .missing,
                detail: "kernel built without CONFIG_IOMMUFD, or its module is not loaded; devices are passed through by containers instead")
        case .absent(let errno):
            Check(name: IOMMUFD.path, verdict: .warning, detail: "\(errno): let this user open it; devices are passed through by containers instead")
        }
    }

    private var container: Check {
        do {
            let container = try VFIOContainer.open()
            return container.supports(.type1v2)
                ? Check(name: VFIOContainer.path, verdict: .ok, detail: "can be opened for groups of devices")
                : Check(
                    name: VFIOContainer.path, verdict: .warning, detail: "without an IOMMU of type 1 version 2: no containers; load vfio_iommu_type1")
        } catch {
            return Check(
                name: VFIOContainer.path, verdict: .missing, detail: "\(error): no containers; load the module vfio (modprobe vfio-pci)")
        }
    }

    private var none: Check {
        Check(
            name: "vfio devices", verdict: .ok,
            detail: "none was given to vfio-pci; docs/vfio.md says how, and `baton run` of a machine that names one says what it lacks")
    }

    private func check(_ device: HostDevice) -> Check {
        let name = "vfio \(device.address)"
        let obstacles = device.obstacles
        if !obstacles.isEmpty { return Check(name: name, verdict: .warning, detail: obstacles.joined(separator: " ")) }
        let backends = device.node == nil ? "container only" : "container, iommufd (\(device.node ?? ""))"
        return Check(name: name, verdict: .ok, detail: "\(device.driver ?? "vfio"), group \(device.group ?? 0), \(backends)")
    }
}
