package import Wire

/// One device beyond what every machine of the model has: what the guest sees of it. What is behind it comes by manifest.
///
/// Device i of a machine is PCI function 00:(i + 1).0, so the order in a list of them is part of the machine.
package enum DeviceSpecification: Sendable, Equatable, Hashable {
    /// A virtio disk; behind it the lent ``ResourceKind/disk``.
    case disk(DiskSpecification)
    /// A virtio network interface; behind it one lent ``ResourceKind/tap`` for each queue pair.
    case network(NetworkSpecification)
    /// A virtio console with several ports; behind each the lent ``ResourceKind/consolePort``.
    case console(ConsoleSpecification)
    /// A virtio source of randomness. Needs no descriptor.
    case entropy
    /// A passed-through device of the host; behind it ``ResourceKind/vfioDevice`` and what goes with it.
    case passthrough(VFIOSpecification)

    /// Most devices of a machine: as many slots as bus 0 has beside the host bridge and one kept free.
    package static let limit = 30
}

/// What the guest sees of a disk.
package struct DiskSpecification: Sendable, Equatable, Hashable {
    package var readOnly: Bool
    /// Printable ASCII, at most ``serialLimit`` bytes; may be empty. virtio 1.2, 5.2.6, VIRTIO_BLK_T_GET_ID.
    package var serial: String
    /// Request queues, in ``queueRange``.
    package var queues: UInt16

    package static let serialLimit = 20
    package static let queueRange: ClosedRange<UInt16> = 1...8

    package init(readOnly: Bool = false, serial: String = "", queues: UInt16 = 1) {
        self.readOnly = readOnly
        self.serial = serial
        self.queues = queues
    }
}

/// What the guest sees of a network interface.
package struct NetworkSpecification: Sendable, Equatable, Hashable {
    /// Six bytes, of one interface: not a group address, not zero.
    package var mac: [UInt8]
    /// Receive and transmit queues, as many of each, in ``queuePairRange``.
    package var queuePairs: UInt16
    /// Bytes of payload of the largest frame, in ``mtuRange``.
    package var mtu: UInt16

    package static let queuePairRange: ClosedRange<UInt16> = 1...8
    /// virtio 1.2, 5.1.4.1 below; what a tap can carry above.
    package static let mtuRange: ClosedRange<UInt16> = 68...65521

    package init(mac: [UInt8], queuePairs: UInt16 = 1, mtu: UInt16 = 1500) {
        self.mac = mac
        self.queuePairs = queuePairs
        self.mtu = mtu
    }

    /// Whether `mac` can be an interface's own address.
    package static func isUsable(mac: [UInt8]) -> Bool { mac.count == 6 && mac[0] & 1 == 0 && mac.contains { $0 != 0 } }
}

/// What the guest sees of a console with ports.
package struct ConsoleSpecification: Sendable, Equatable, Hashable {
    /// The names of the ports, each its own, none empty, at most ``nameLimit`` bytes of printable ASCII.
    package var ports: [String]

    package static let portRange = 1...8
    package static let nameLimit = 64

    package init(ports: [String]) {
        self.ports = ports
    }
}

extension DeviceSpecification {
    /// Reads the devices of a machine: a 32-bit count, then each. Everything within the limits above, or it throws.
    package static func list(from reader: inout WireReader) throws(WireError) -> [DeviceSpecification] {
        try reader.list(limit: limit) { reader throws(WireError) in try DeviceSpecification(from: &reader) }
    }

    /// Writes the devices of a machine.
    package static func encode(_ devices: [DeviceSpecification], to writer: inout WireWriter) {
        writer.list(devices) { writer, device in device.encode(to: &writer) }
    }

    private init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        switch try reader.u8() {
        case 1: self = .disk(try DiskSpecification(from: &reader))
        case 2: self = .network(try NetworkSpecification(from: &reader))
        case 3: self = .console(try ConsoleSpecification(from: &reader))
        case 4: self = .entropy
        case 5: self = .passthrough(try VFIOSpecification(from: &reader))
        case let other: throw .invalid(offset: start, field: "the kind of a device", value: UInt64(other))
        }
    }

    private func encode(to writer: inout WireWriter) {
        switch self {
        case .disk(let disk):
            writer.u8(1)
            disk.encode(to: &writer)
        case .network(let network):
            writer.u8(2)
            network.encode(to: &writer)
        case .console(let console):
            writer.u8(3)
            writer.list(console.ports) { writer, name in writer.string(name) }
        case .entropy: writer.u8(4)
        case .passthrough(let device):
            writer.u8(5)
            device.encode(to: &writer)
        }
    }
}

extension DiskSpecification {
    fileprivate init(from reader: inout WireReader) throws(WireError) {
        readOnly = try reader.bool()
        serial = try reader.printable(limit: Self.serialLimit, "a disk's serial number")
        queues = try reader.u16(in: Self.queueRange, "the number of a disk's queues")
    }

    fileprivate func encode(to writer: inout WireWriter) {
        writer.bool(readOnly)
        writer.string(serial)
        writer.u16(queues)
    }
}

extension NetworkSpecification {
    fileprivate init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        mac = try reader.raw(6)
        if !Self.isUsable(mac: mac) { throw .invalid(offset: start, field: "the first byte of an interface's address", value: UInt64(mac[0])) }
        queuePairs = try reader.u16(in: Self.queuePairRange, "the number of queue pairs")
        mtu = try reader.u16(in: Self.mtuRange, "the MTU")
    }

    fileprivate func encode(to writer: inout WireWriter) {
        writer.raw(mac)
        writer.u16(queuePairs)
        writer.u16(mtu)
    }
}

extension ConsoleSpecification {
    fileprivate init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        ports = try reader.list(limit: Self.portRange.upperBound) { reader throws(WireError) in
            try reader.printable(limit: Self.nameLimit, "a port's name")
        }
        if ports.isEmpty || ports.contains("") || Set(ports).count != ports.count {
            throw .invalid(offset: start, field: "a console's ports, each with a name of its own,", value: UInt64(ports.count))
        }
    }
}

extension WireReader {
    mutating func u16(in range: ClosedRange<UInt16>, _ field: String) throws(WireError) -> UInt16 {
        let start = offset
        let value = try u16()
        if !range.contains(value) { throw .invalid(offset: start, field: field, value: UInt64(value)) }
        return value
    }

    /// A string of printable ASCII.
    mutating func printable(limit: Int, _ field: String) throws(WireError) -> String {
        let start = offset
        let text = try string(limit: limit)
        if let bad = text.utf8.first(where: { $0 < 0x20 || $0 > 0x7E }) { throw .invalid(offset: start, field: field, value: UInt64(bad)) }
        return text
    }
}
