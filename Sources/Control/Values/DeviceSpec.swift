/// One device of a machine, as its operator asks for it. Device i is PCI function 00:(i + 1).0.
///
/// In JSON an object with exactly one member, named like the case.
package enum DeviceSpec: Codable, Sendable, Equatable {
    case disk(DiskSpec)
    case net(NetSpec)
    case console(PortsSpec)
    case rng(RandomSpec)
    case vfio(VFIOSpec)

    /// Most devices of a machine.
    package static let limit = 30

    package enum Kind: String, CodingKey, CaseIterable, Sendable {
        case disk, net, console, rng, vfio
    }

    package var kind: Kind {
        switch self {
        case .disk: .disk
        case .net: .net
        case .console: .console
        case .rng: .rng
        case .vfio: .vfio
        }
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Kind.self)
        let present = try container.allKeys.filter { key in try !container.decodeNil(forKey: key) }
        guard present.count == 1, let kind = present.first else {
            throw DecodingError.dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: "a device has exactly one kind"))
        }
        self =
            switch kind {
            case .disk: .disk(try container.decode(DiskSpec.self, forKey: .disk))
            case .net: .net(try container.decode(NetSpec.self, forKey: .net))
            case .console: .console(try container.decode(PortsSpec.self, forKey: .console))
            case .rng: .rng(try container.decode(RandomSpec.self, forKey: .rng))
            case .vfio: .vfio(try container.decode(VFIOSpec.self, forKey: .vfio))
            }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Kind.self)
        switch self {
        case .disk(let disk): try container.encode(disk, forKey: .disk)
        case .net(let net): try container.encode(net, forKey: .net)
        case .console(let console): try container.encode(console, forKey: .console)
        case .rng(let random): try container.encode(random, forKey: .rng)
        case .vfio(let device): try container.encode(device, forKey: .vfio)
        }
    }
}

/// A virtio disk on a raw file or a block device.
package struct DiskSpec: Codable, Sendable, Equatable {
    package var path: String
    package var readOnly: Bool
    /// What the guest reads as the disk's serial number: printable ASCII, at most 20 bytes.
    package var serial: String?
    /// Request queues; as many as vCPUs and at most 4 when absent.
    package var queues: Int?

    package init(path: String, readOnly: Bool = false, serial: String? = nil, queues: Int? = nil) {
        self.path = path
        self.readOnly = readOnly
        self.serial = serial
        self.queues = queues
    }
}

/// A virtio network interface on a tap that the operator has made.
package struct NetSpec: Codable, Sendable, Equatable {
    /// The tap's name.
    package var tap: String
    /// Six bytes in hexadecimal with colons; derived from the machine's name and the device's place when absent.
    package var mac: String?
    /// Queue pairs.
    package var queues: Int?
    package var mtu: Int?

    package init(tap: String, mac: String? = nil, queues: Int? = nil, mtu: Int? = nil) {
        self.tap = tap
        self.mac = mac
        self.queues = queues
        self.mtu = mtu
    }
}

/// A virtio console: byte streams between the guest and sockets of the host, by name.
package struct PortsSpec: Codable, Sendable, Equatable {
    package var ports: [Port]

    package init(ports: [Port]) { self.ports = ports }

    package struct Port: Codable, Sendable, Equatable {
        /// What the guest knows it by.
        package var name: String
        /// A stream socket the supervisor listens on.
        package var socket: String

        package init(name: String, socket: String) {
            self.name = name
            self.socket = socket
        }
    }
}

/// A virtio source of randomness. There is nothing to say about it.
package struct RandomSpec: Codable, Sendable, Equatable {
    package init() {}
}

/// A device of the host, passed through to the guest.
package struct VFIOSpec: Codable, Sendable, Equatable {
    /// Where it is on the host: a PCI address as in `0000:06:00.0`, or the UUID of a mediated device.
    package var address: String
    package var backend: Backend

    /// By which of the kernel's interfaces its memory is mapped.
    package enum Backend: String, Codable, Sendable, CaseIterable {
        /// iommufd where this host and the device have it, else a container. Settled when the machine starts.
        case auto
        case iommufd
        case container
    }

    package init(address: String, backend: Backend = .auto) {
        self.address = address
        self.backend = backend
    }
}

/// A device as a machine has it: everything that its description left open is settled.
package struct Device: Codable, Sendable, Equatable {
    /// Its PCI address, as in `00:01.0`.
    package var address: String
    package var spec: DeviceSpec

    package init(address: String, spec: DeviceSpec) {
        self.address = address
        self.spec = spec
    }
}

extension MachineSpec {
    /// Its devices with their addresses and with everything settled that the description leaves open.
    package var settledDevices: [Device] {
        (devices ?? []).enumerated().map { index, device in
            // Device numbers are written in hexadecimal, as lspci(8) does.
            let number = String(index + 1, radix: 16)
            let address = "00:" + (number.count == 1 ? "0" : "") + number + ".0"
            switch device {
            case .disk(var disk):
                disk.queues = disk.queues ?? min(vcpus, DiskSpec.defaultQueues)
                return Device(address: address, spec: .disk(disk))
            case .net(var net):
                net.mac = net.mac ?? MACAddress.derived(machine: name, index: index)
                net.queues = net.queues ?? 1
                net.mtu = net.mtu ?? NetSpec.defaultMTU
                return Device(address: address, spec: .net(net))
            case .console, .rng, .vfio: return Device(address: address, spec: device)
            }
        }
    }
}

extension DiskSpec {
    static let defaultQueues = 4
    package static let queueRange = 1...8
}

extension NetSpec {
    package static let defaultMTU = 1500
    package static let queueRange = 1...8
    /// What virtio allows below and a tap above.
    package static let mtuRange = 68...65521
}

extension PortsSpec {
    package static let portRange = 1...8
}

extension VFIOSpec {
    /// Whether the address is that of a PCI function, as sysfs writes it.
    package var isPCI: Bool {
        let parts = address.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3 else { return false }
        let last = parts[2].split(separator: ".", omittingEmptySubsequences: false)
        guard last.count == 2, let function = last[1].utf8.first, last[1].utf8.count == 1, 0x30...0x37 ~= function else { return false }
        return Self.isHexadecimal(parts[0], 4...8) && Self.isHexadecimal(parts[1], 2...2) && Self.isHexadecimal(last[0], 2...2)
    }

    /// Whether the address is a UUID, as sysfs writes it: a mediated device.
    package var isMediated: Bool {
        let parts = address.split(separator: "-", omittingEmptySubsequences: false)
        return parts.map(\.utf8.count) == [8, 4, 4, 4, 12] && parts.allSatisfy { Self.isHexadecimal($0, 4...12) }
    }

    private static func isHexadecimal(_ text: Substring, _ length: ClosedRange<Int>) -> Bool {
        length ~= text.utf8.count && text.utf8.allSatisfy { 0x30...0x39 ~= $0 || 0x61...0x66 ~= $0 }
    }
}
