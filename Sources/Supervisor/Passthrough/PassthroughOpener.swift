internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// Which machine of this host has a device of the host, if one has.
typealias DeviceUser = (String) -> String?

/// Opens, binds and attaches the devices of the host that a machine names. Each descriptor is in custody before anything is done with it.
struct PassthroughOpener {
    let machine: String
    let user: DeviceUser
    /// Puts a descriptor into custody under a name.
    let deposit: (String, SharedDescriptor) throws(ControlError) -> Void
    private var resources = PassthroughResources()
    private var addressSpace: UInt32?
    private var groups: [Int: VFIOGroup] = [:]

    init(machine: String, user: @escaping DeviceUser, deposit: @escaping (String, SharedDescriptor) throws(ControlError) -> Void) {
        self.machine = machine
        self.user = user
        self.deposit = deposit
    }

    /// What is behind all of `devices`. What was deposited before a failure is dropped by the caller, and the devices go back with it.
    static func open(
        _ devices: [(index: Int, device: VFIOSpec)], machine: String, user: @escaping DeviceUser,
        deposit: @escaping (String, SharedDescriptor) throws(ControlError) -> Void
    ) throws(ControlError) -> PassthroughResources {
        guard !devices.isEmpty else { return PassthroughResources() }
        let support = DMABackend.support()
        var opener = PassthroughOpener(machine: machine, user: user, deposit: deposit)
        for (index, device) in devices { try opener.add(device, index, support) }
        return opener.resources
    }

    private mutating func add(_ spec: VFIOSpec, _ index: Int, _ support: DMABackend.Support) throws(ControlError) {
        guard let device = HostDevice(spec) else {
            throw .invalidSpec(
                key: "devices[\(index)].vfio.address", reason: "this host has no device \(spec.address); `lspci -D` lists those on PCI")
        }
        if let other = user(spec.address) {
            throw .refused(machine: machine, reasons: ["\(spec.address): machine \(other) has it", "→ stop that one"])
        }
        let obstacles = device.obstacles
        guard obstacles.isEmpty else { throw .refused(machine: machine, reasons: obstacles) }
        let file: VFIODevice
        var group: VFIOGroup?
        let backend: VFIOSpecification.Backend
        switch try DMABackend.choose(spec.backend, for: device, support, machine: machine) {
        case .iommufd:
            (file, backend) = try bind(device, index)
        case .container:
            let joined = try join(device, index)
            file = try once(device, "opening it") { () throws(Errno) in try joined.device(device.address) }
            try deposit(ManifestEntry.vfioDevice(index).name, file.file)
            (group, backend) = (joined, .container)
        }
        let events = try arm(file, device, index)
        resources.devices.append(
            .init(index: index, address: device.address, backend: backend, file: file, group: group?.file, events: events))
    }

    // MARK: iommufd

    private mutating func bind(_ device: HostDevice, _ index: Int) throws(ControlError) -> (VFIODevice, VFIOSpecification.Backend) {
        let (iommufd, addressSpace) = try sharedIOMMUFD(device)
        let file = try once(device, "opening /dev/vfio/devices/\(device.node ?? "")") { () throws(Errno) in
            try VFIODevice.open(named: device.node ?? "")
        }
        try deposit(ManifestEntry.vfioDevice(index).name, file.file)
        try once(device, "binding it to iommufd") { () throws(Errno) in try file.bind(to: iommufd) }
        try once(device, "attaching it to an address space") { () throws(Errno) in try file.attach(to: addressSpace) }
        return (file, .iommufd(ioas: addressSpace))
    }

    /// The machine's own, with its address space: made and deposited when first asked for.
    private mutating func sharedIOMMUFD(_ device: HostDevice) throws(ControlError) -> (IOMMUFD, UInt32) {
        if let iommufd = resources.iommufd, let addressSpace { return (iommufd, addressSpace) }
        let iommufd = try failing(device, "opening \(IOMMUFD.path)") { () throws(Errno) in try IOMMUFD.open() }
        let made = try failing(device, "making an address space") { () throws(Errno) in try iommufd.allocateAddressSpace() }
        try deposit(PassthroughResources.Name.iommufd(made), iommufd.file)
        resources.iommufd = iommufd
        addressSpace = made
        return (iommufd, made)
    }

    // MARK: Containers

    /// The device's group, in the machine's container: opened and deposited when first asked for.
    private mutating func join(_ device: HostDevice, _ index: Int) throws(ControlError) -> VFIOGroup {
        let number = device.group ?? 0
        if let group = groups[number] {
            try deposit(ManifestEntry.vfioGroup(device: index).name, group.file)
            return group
        }
        let container = try sharedContainer(device)
        let group = try once(device, "opening its group /dev/vfio/\(number)") { () throws(Errno) in try VFIOGroup.open(number) }
        try deposit(ManifestEntry.vfioGroup(device: index).name, group.file)
        try failing(device, "putting its group \(number) into the machine's container") { () throws(Errno) in try group.join(container) }
        if groups.isEmpty { try failing(device, "giving the container its IOMMU") { () throws(Errno) in try container.setIOMMU() } }
        groups[number] = group
        guard container.supports(.updateAddresses) else {
            throw .refused(
                machine: machine,
                reasons: [
                    "\(device.address): this kernel's containers let no other process take mappings over (VFIO_UPDATE_VADDR, Linux 5.12); "
                        + "those that iommufd plays (CONFIG_IOMMUFD_VFIO_CONTAINER) never do",
                    "→ use backend: iommufd",
                ])
        }
        return group
    }

    private mutating func sharedContainer(_ device: HostDevice) throws(ControlError) -> VFIOContainer {
        if let container = resources.container { return container }
        let container = try failing(device, "opening \(VFIOContainer.path)") { () throws(Errno) in try VFIOContainer.open() }
        try deposit(ManifestEntry.vfioContainer.name, container.file)
        resources.container = container
        return container
    }

    // MARK: Interrupts

    /// An eventfd for every interrupt there is. Workers arm theirs; errors, and the host's request to have the device back, are armed here.
    private func arm(_ file: VFIODevice, _ device: HostDevice, _ index: Int) throws(ControlError) -> PassthroughResources.Events {
        func count(_ kind: VFIOInterruptIndex) throws(ControlError) -> Int {
            try failing(device, "asking for its interrupts") { () throws(Errno) in try file.interrupts(kind).count }
        }
        func event(_ name: String) throws(ControlError) -> SharedDescriptor {
            let event = try failing(device, "making an eventfd") { () throws(Errno) in try EventDescriptor.shared() }
            try deposit(name, event)
            return event
        }
        // Asked first: some drivers know their interrupts only afterwards.
        guard try failing(device, "asking what it is", { () throws(Errno) in try file.information().isPCI }) else {
            throw .refused(machine: machine, reasons: ["\(device.address): it is no PCI device, and guests have no other bus"])
        }
        var events = PassthroughResources.Events()
        let lines = try count(.intx)
        let vectors = min(max(try count(.msix), try count(.msi), lines), PassthroughResources.mostVectors)
        for vector in 0..<vectors { events.vectors.append(try event(ManifestEntry.interruptEvent(device: index, vector: vector).name)) }
        if lines > 0 { events.unmask = try event(ManifestEntry.unmaskEvent(device: index).name) }
        // These two are for us, and armed for good. A mediated device need not take them.
        func ours(_ kind: VFIOInterruptIndex, _ name: String) throws(ControlError) -> SharedDescriptor? {
            guard try count(kind) > 0 else { return nil }
            let event = try event(name)
            do throws(Errno) { try file.arm(kind, [event]) } catch {
                if !device.isMediated { throw refusal(error, device, "arming interrupt \(kind)") }
            }
            return event
        }
        events.errors = try ours(.error, PassthroughResources.Name.errors(index))
        events.request = try ours(.request, PassthroughResources.Name.request(index))
        return events
    }

    // MARK: Errors

    /// How long a device may take to be free: one that its last user has just let go of is being reset.
    private static let patience: Int64 = 2_000_000_000

    /// Does it, again for a while if the device is in use.
    @discardableResult
    private func once<Value>(_ device: HostDevice, _ what: String, _ body: () throws(Errno) -> Value) throws(ControlError) -> Value {
        let deadline = SystemClock.monotonic() + Self.patience
        while true {
            do throws(Errno) {
                return try body()
            } catch {
                // `EINVAL` is what binding says of a device that somebody else has bound.
                let isBusy = error == .resourceBusy || error == .invalidArgument
                if !isBusy || SystemClock.monotonic() >= deadline { throw refusal(error, device, what) }
            }
            SystemClock.sleep(.milliseconds(50))
        }
    }

    @discardableResult
    private func failing<Value>(_ device: HostDevice, _ what: String, _ body: () throws(Errno) -> Value) throws(ControlError) -> Value {
        do { return try body() } catch { throw refusal(error, device, what) }
    }

    private func refusal(_ errno: Errno, _ device: HostDevice, _ what: String) -> ControlError {
        let advice: String? =
            switch errno {
            case .resourceBusy, .invalidArgument:
                "→ another program has it, or another device of its IOMMU group: fuser -v /dev/vfio/* /dev/vfio/devices/*"
            case .notPermitted:
                "→ interrupts of this device cannot be kept to this machine: switch interrupt remapping on in the firmware (intremap); "
                    + "or another program owns the group"
            case .permissionDenied: "→ let user \(CurrentProcess.userID) open it for reading and writing"
            case .noSuchFileOrDirectory, .noSuchAddressOrDevice: "→ load the kernel's modules: modprobe vfio-pci"
            default: nil
            }
        return .refused(machine: machine, reasons: ["\(device.address): \(what): \(errno)"] + [advice].compactMap(\.self))
    }
}
