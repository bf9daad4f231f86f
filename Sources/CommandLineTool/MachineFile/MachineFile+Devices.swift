internal import Control
internal import Yams

// What the entries of `devices` mean.
extension MachineFile.Keys {
    static let disk = ["path", "read-only", "serial", "queues"]
    static let net = ["tap", "mac", "queues", "mtu"]
    static let ports = ["ports"]
    static let port = ["name", "socket"]
    static let vfio = ["address", "backend"]
}

extension MachineFile {
    /// The devices that the file lists; `nil` when it does not speak of devices.
    func devices(_ top: MappingReader) throws(MachineFileFault) -> [DeviceSpec]? {
        guard let entries = try top.sequence("devices") else { return nil }
        var devices: [DeviceSpec] = []
        for (index, entry) in entries.enumerated() { devices.append(try device(entry, "devices[\(index)]")) }
        return devices
    }

    private func device(_ entry: Node, _ path: String) throws(MachineFileFault) -> DeviceSpec {
        let kinds = DeviceSpec.Kind.allCases.map(\.rawValue)
        guard case .mapping(let mapping) = entry, let first = mapping.first, let name = first.key.scalar?.string else {
            let example = entry.scalar?.string == "rng" ? "rng: {}" : "disk: {path: web1.raw}"
            throw MappingReader.fault(self.name, entry.mark, path, "not a device; an entry is a kind and its keys, as in \(example)")
        }
        guard mapping.count == 1 else {
            throw MappingReader.fault(self.name, entry.mark, path, "\(mapping.count) keys where one device is expected; begin the next with \"- \"")
        }
        guard let kind = DeviceSpec.Kind(rawValue: name) else {
            let hint = Suggestion.nearest(to: name, among: kinds).map { "did you mean \($0)? There" } ?? "there"
            throw MappingReader.fault(
                self.name, first.key.mark, path, "\"\(name.shortened)\" is not a device; \(hint) are disk, net, console, rng and vfio")
        }
        func reader(_ allowed: [String]) throws(MachineFileFault) -> MappingReader {
            try MappingReader(first.value, file: self.name, path: "\(path).\(name)", allowed: allowed)
        }
        return switch kind {
        case .disk: .disk(try disk(try reader(Keys.disk)))
        case .net: .net(try net(try reader(Keys.net)))
        case .console: .console(try ports(try reader(Keys.ports)))
        case .rng: .rng(try random(try reader([])))
        case .vfio: .vfio(try vfio(try reader(Keys.vfio)))
        }
    }

    private func disk(_ reader: MappingReader) throws(MachineFileFault) -> DiskSpec {
        _ = try reader.required("path", "a raw file or a block device")
        return DiskSpec(
            path: try path("path", in: reader) ?? "", readOnly: try reader.flag("read-only") ?? false, serial: try reader.text("serial"),
            queues: try reader.integer("queues", "a number of queues"))
    }

    private func net(_ reader: MappingReader) throws(MachineFileFault) -> NetSpec {
        _ = try reader.required("tap", "the name of a tap interface, as in tap-web1")
        return NetSpec(
            tap: try reader.text("tap") ?? "", mac: try reader.text("mac"), queues: try reader.integer("queues", "a number of queue pairs"),
            mtu: try reader.integer("mtu", "a number of bytes"))
    }

    private func ports(_ reader: MappingReader) throws(MachineFileFault) -> PortsSpec {
        _ = try reader.required("ports", "its streams, as in [{name: org.example.agent, socket: /run/baton/web1.agent}]")
        var ports: [PortsSpec.Port] = []
        for (index, entry) in (try reader.sequence("ports") ?? []).enumerated() {
            let port = try MappingReader(entry, file: name, path: "\(reader.dotted("ports"))[\(index)]", allowed: Keys.port)
            _ = try port.required("name", "what the guest knows the stream by, as in org.example.agent")
            _ = try port.required("socket", "the path of a socket on this host")
            ports.append(PortsSpec.Port(name: try port.text("name") ?? "", socket: try path("socket", in: port) ?? ""))
        }
        return PortsSpec(ports: ports)
    }

    private func vfio(_ reader: MappingReader) throws(MachineFileFault) -> VFIOSpec {
        _ = try reader.required("address", "where the device is on this host, as in 0000:06:00.0")
        return VFIOSpec(
            address: try reader.text("address") ?? "",
            backend: try reader.choice("backend", of: VFIOSpec.Backend.self, not: "a way to map a device's memory") ?? .auto)
    }

    private func random(_ reader: MappingReader) throws(MachineFileFault) -> RandomSpec { RandomSpec() }

    /// The list of CPUs for each vCPU.
    func affinity(_ top: MappingReader) throws(MachineFileFault) -> [[Int]]? {
        guard let entries = try top.sequence("vcpu-affinity") else { return nil }
        var lists: [[Int]] = []
        for (index, entry) in entries.enumerated() {
            let path = "vcpu-affinity[\(index)]"
            guard case .sequence(let cpus) = entry else {
                throw MappingReader.fault(name, entry.mark, path, "not a list of CPUs; each vCPU has its own, as in [[0, 1], [2]]")
            }
            var list: [Int] = []
            for cpu in cpus {
                guard let number = cpu.scalar.flatMap({ $0.style == .plain ? Int($0.string) : nil }) else {
                    throw MappingReader.fault(name, cpu.mark, path, "not the number of a CPU")
                }
                list.append(number)
            }
            lists.append(list)
        }
        return lists
    }
}

extension MachineFile {
    /// Where the value stands that a dotted path such as `devices[2].disk.path` names, or the innermost of its ancestors that is there.
    static func place(of path: String, in root: Node) -> Mark? {
        var node = root
        for step in path.replacing("[", with: ".[").split(separator: ".") {
            let next: Node? =
                if step.hasPrefix("[") {
                    node.sequence.flatMap { list in Int(step.dropFirst().dropLast()).flatMap { list.indices.contains($0) ? list[$0] : nil } }
                } else {
                    node.mapping?.first { $0.key.scalar?.string == String(step) }?.value
                }
            guard let next else { break }
            node = next
        }
        return node.mark
    }
}
