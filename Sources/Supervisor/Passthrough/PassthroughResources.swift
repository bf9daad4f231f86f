internal import Control
internal import Handover
internal import Keeper
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// What is behind a machine's passed-through devices: opened, bound and attached before any worker exists, in custody until the machine ends.
///
/// The last descriptor of a device to be closed resets it: custody has one for as long as the machine lives, so no worker's end touches a device.
struct PassthroughResources: Sendable {
    struct Device: Sendable {
        let index: Int
        let address: String
        let backend: VFIOSpecification.Backend
        let file: VFIODevice
        /// Of a device in a container.
        let group: SharedDescriptor?
        let events: Events
    }

    /// The eventfds of one device.
    struct Events: Sendable {
        /// One for each vector. The first is also that of INTx.
        var vectors: [SharedDescriptor] = []
        /// If it has INTx: what unmasks it.
        var unmask: SharedDescriptor?
        // Ours, not lent to anybody.
        /// If it reports errors (PCI Express).
        var errors: SharedDescriptor?
        /// If the host can ask for it back.
        var request: SharedDescriptor?
    }

    var devices: [Device] = []
    var container: VFIOContainer?
    var iommufd: IOMMUFD?

    /// Vectors beyond these are not offered to a guest.
    static let mostVectors = 512

    /// Under which names things that have no place in a manifest are in custody.
    enum Name {
        static func request(_ index: Int) -> String { "request-\(index)" }
        static func errors(_ index: Int) -> String { "errors-\(index)" }
        /// The iommufd, with the id of its one address space.
        static func iommufd(_ addressSpace: UInt32) -> String { "iommufd-\(addressSpace)" }
        static func addressSpace(_ name: String) -> UInt32? { name.hasPrefix("iommufd-") ? UInt32(name.dropFirst(8)) : nil }
    }

    /// Takes everything back out of custody, as it was configured.
    static func adopt(_ spec: MachineSpec, custody: CustodyClient) throws -> Self {
        var resources = PassthroughResources()
        let wanted = spec.passthroughDevices
        if wanted.isEmpty { return resources }
        let names = try custody.keys(of: spec.name).filter { $0.generation == 0 }.map(\.name)
        let held = Set(names)
        func get(_ name: String) throws(CustodyError) -> SharedDescriptor { try custody.get(CustodyKey(machine: spec.name, name: name)) }
        func take(_ name: String) throws(CustodyError) -> SharedDescriptor? { held.contains(name) ? try get(name) : nil }
        let addressSpace = names.compactMap(Name.addressSpace).first
        resources.iommufd = try addressSpace.map { IOMMUFD(adopting: try get(Name.iommufd($0))) }
        resources.container = try take(ManifestEntry.vfioContainer.name).map(VFIOContainer.init(adopting:))
        for (index, device) in wanted {
            var events = Events()
            while let vector = try take(ManifestEntry.interruptEvent(device: index, vector: events.vectors.count).name) {
                events.vectors.append(vector)
            }
            events.unmask = try take(ManifestEntry.unmaskEvent(device: index).name)
            events.errors = try take(Name.errors(index))
            events.request = try take(Name.request(index))
            let group = try take(ManifestEntry.vfioGroup(device: index).name)
            guard let backend = group != nil ? .container : addressSpace.map({ VFIOSpecification.Backend.iommufd(ioas: $0) }) else {
                throw ControlError.failed(reason: "custody has neither a group nor an iommufd for \(device.address)")
            }
            resources.devices.append(
                Device(
                    index: index, address: device.address, backend: backend,
                    file: VFIODevice(adopting: try get(ManifestEntry.vfioDevice(index).name)), group: group, events: events))
        }
        return resources
    }

    /// What a worker is lent of it.
    var lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)] {
        var lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)] = []
        if let iommufd { lease.append((.iommufd, iommufd.file)) }
        if let container { lease.append((.vfioContainer, container.file)) }
        for device in devices {
            lease.append((.vfioDevice(device.index), device.file.file))
            if let group = device.group { lease.append((.vfioGroup(device: device.index), group)) }
            for (vector, event) in device.events.vectors.enumerated() {
                lease.append((.interruptEvent(device: device.index, vector: vector), event))
            }
            if let unmask = device.events.unmask { lease.append((.unmaskEvent(device: device.index), unmask)) }
        }
        return lease
    }

    /// The device at `index` as workers are told of it.
    func specification(_ index: Int) -> VFIOSpecification? {
        devices.first { $0.index == index }.map { device in
            VFIOSpecification(address: device.address, backend: device.backend, vectors: UInt16(clamping: device.events.vectors.count))
        }
    }

    /// Brings every device to rest and unmaps all memory: for when the guest is gone, as before a cold start or at the end of the machine. What could
    /// not be done of it, for people.
    func quieten() -> [String] {
        var remarks: [String] = []
        for device in devices {
            do {
                try device.quieten()
            } catch {
                remarks.append("\(device.address) could not be brought to rest: \(error)")
            }
        }
        do {
            if let container { try container.unmapAll() }
            for case .iommufd(let ioas) in Set(devices.map(\.backend)) {
                try iommufd?.unmap(iova: 0, length: .max, in: ioas)
            }
        } catch Errno.noSuchFileOrDirectory {
            // Nothing was mapped.
        } catch {
            remarks.append("the memory of the machine could not be unmapped: \(error)")
        }
        return remarks
    }
}

extension PassthroughResources.Device {
    /// No interrupts, no DMA, and a reset if it knows how to do one.
    fileprivate func quieten() throws(Errno) {
        for index in [VFIOInterruptIndex.msix, .msi, .intx] where try file.interrupts(index).count > 0 { try? file.disarm(index) }
        for event in events.vectors { Self.drain(event) }
        let information = try file.information()
        if information.isPCI {
            // The command register: no memory, no I/O, no bus mastering (PCI Local Bus Specification 3.0, 6.2.2).
            try file.store(0, to: try file.region(.configuration), at: 4, width: 2)
        }
        if information.canReset { try file.reset() }
    }

    private static func drain(_ event: SharedDescriptor) { _ = try? event.descriptor.read(upTo: 8) }
}

extension MachineSpec {
    /// The devices of the host that the machine has, with their places among its devices.
    var passthroughDevices: [(index: Int, device: VFIOSpec)] {
        (devices ?? []).enumerated().compactMap { index, device in
            if case .vfio(let spec) = device { (index, spec) } else { nil }
        }
    }
}
