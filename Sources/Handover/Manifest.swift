internal import Wire

/// What kind of kernel object a lent descriptor is.
package enum ResourceKind: UInt16, Sendable, CaseIterable {
    /// `/dev/kvm`.
    case kvm = 1
    /// A memfd of guest RAM; slot n is region n.
    case guestMemory = 2
    /// The memfd with the machine's commit word at offset 0.
    case commitWord = 3
    /// The memfd a checkpoint is written to and read from.
    case checkpoint = 4
    /// A byte stream for the serial console.
    case console = 5
    /// A read-only file: kernel (slot 0), initial RAM disk (slot 1).
    case bootFile = 6
    /// A disk: a raw file or a block device; slot is the device's index.
    case disk = 7
    /// One queue pair of a tap; slot is the device's index << 8 | the queue pair.
    case tap = 8
    /// A byte stream for a port of a virtio console; slot is the device's index << 8 | the port.
    case consolePort = 9
    /// A passed-through device, bound and attached; slot is the device's index.
    case vfioDevice = 10
    /// The group of a passed-through device; slot is the device's index.
    case vfioGroup = 11
    /// The container that the groups of all such devices of the machine are in; slot 0.
    case vfioContainer = 12
    /// The iommufd that all such devices of the machine are bound to, or the others of them; slot 0.
    case iommufd = 13
    /// An eventfd for a vector of a passed-through device; slot is the device's index << 16 | the vector. Vector 0 is INTx as well. With
    /// ``ManifestEntry/unmask`` in place of the vector: the one that unmasks INTx.
    case interruptEvent = 14
}

/// One lent descriptor: found by name, never by number or order.
package struct ManifestEntry: Sendable, Equatable {
    package let name: String
    package let kind: ResourceKind
    package let slot: UInt32
    package let writable: Bool

    package init(name: String, kind: ResourceKind, slot: UInt32 = 0, writable: Bool = true) {
        self.name = name
        self.kind = kind
        self.slot = slot
        self.writable = writable
    }

    /// What is behind the disk that is device `index` of its machine.
    package static func disk(device index: Int, writable: Bool) -> ManifestEntry {
        ManifestEntry(name: "disk-\(index)", kind: .disk, slot: UInt32(index), writable: writable)
    }

    /// A queue pair of the network interface that is device `index`.
    package static func tap(device index: Int, queue: Int) -> ManifestEntry {
        ManifestEntry(name: "tap-\(index)-\(queue)", kind: .tap, slot: UInt32(index << 8 | queue))
    }

    /// A port of the console that is device `index`.
    package static func consolePort(device index: Int, port: Int) -> ManifestEntry {
        ManifestEntry(name: "port-\(index)-\(port)", kind: .consolePort, slot: UInt32(index << 8 | port))
    }

    /// The passed-through device that is device `index`.
    package static func vfioDevice(_ index: Int) -> ManifestEntry {
        ManifestEntry(name: "vfio-\(index)", kind: .vfioDevice, slot: UInt32(index))
    }

    /// The group of the passed-through device that is device `index`.
    package static func vfioGroup(device index: Int) -> ManifestEntry {
        ManifestEntry(name: "vfio-group-\(index)", kind: .vfioGroup, slot: UInt32(index))
    }

    package static let vfioContainer = ManifestEntry(name: "vfio-container", kind: .vfioContainer)
    package static let iommufd = ManifestEntry(name: "iommufd", kind: .iommufd)

    /// What vector `vector` of the passed-through device that is device `index` signals.
    package static func interruptEvent(device index: Int, vector: Int) -> ManifestEntry {
        ManifestEntry(name: "irq-\(index)-\(vector)", kind: .interruptEvent, slot: UInt32(index << 16 | vector))
    }

    /// What unmasks INTx of the passed-through device that is device `index`.
    package static func unmaskEvent(device index: Int) -> ManifestEntry {
        ManifestEntry(name: "irq-\(index)-unmask", kind: .interruptEvent, slot: UInt32(index) << 16 | unmask)
    }

    /// In the place of a vector: the eventfd that unmasks INTx.
    package static let unmask: UInt32 = 0x8000

    init(from reader: inout WireReader) throws(WireError) {
        name = try reader.string(limit: 64)
        let start = reader.offset
        let raw = try reader.u16()
        guard let kind = ResourceKind(rawValue: raw) else {
            throw .invalid(offset: start, field: "a resource kind", value: UInt64(raw))
        }
        self.kind = kind
        slot = try reader.u32()
        writable = try reader.bool()
    }

    func encode(to writer: inout WireWriter) {
        writer.string(name)
        writer.u16(kind.rawValue)
        writer.u32(slot)
        writer.bool(writable)
    }
}
