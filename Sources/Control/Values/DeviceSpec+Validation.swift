extension MachineSpec {
    /// Refuses devices that no host could give. Keys are those of machine files, as in `devices[2].disk.path`.
    func validateDevices() throws(ControlError) {
        let devices = devices ?? []
        try require(devices.count <= DeviceSpec.limit, "devices", "\(devices.count) devices, and a machine has room for \(DeviceSpec.limit)")
        var sockets = [String: String]()
        if let socket = console?.socket { sockets[socket] = "console.socket" }
        var taps = [String: String]()
        var passed = [String: String]()
        for (index, device) in devices.enumerated() {
            let key = "devices[\(index)].\(device.kind.rawValue)"
            switch device {
            case .disk(let disk): try validate(disk, key)
            case .net(let net):
                try validate(net, key)
                if let other = taps.updateValue(key, forKey: net.tap) {
                    throw .invalidSpec(key: "\(key).tap", reason: "\(net.tap) is behind \(other) already")
                }
            case .console(let console):
                try validate(console, key)
                for (place, port) in console.ports.enumerated() {
                    if let other = sockets.updateValue("\(key).ports[\(place)].socket", forKey: port.socket) {
                        throw .invalidSpec(key: "\(key).ports[\(place)].socket", reason: "\(port.socket) is the socket of \(other) already")
                    }
                }
            case .rng: break
            case .vfio(let device):
                try require(
                    device.isPCI || device.isMediated, "\(key).address",
                    "it is neither a PCI address in full, as in 0000:06:00.0, nor the UUID of a mediated device, in lower case")
                if let other = passed.updateValue(key, forKey: device.address) {
                    throw .invalidSpec(key: "\(key).address", reason: "\(device.address) is \(other) already")
                }
            }
        }
    }

    private func validate(_ disk: DiskSpec, _ key: String) throws(ControlError) {
        try validatePath(disk.path, "\(key).path")
        if let serial = disk.serial {
            try require(
                serial.utf8.count <= 20 && serial.utf8.allSatisfy { 0x20...0x7E ~= $0 }, "\(key).serial",
                "it has more than 20 characters, or one that is not printable ASCII")
        }
        if let queues = disk.queues { try require(DiskSpec.queueRange ~= queues, "\(key).queues", "\(queues) is not between 1 and 8") }
    }

    private func validate(_ net: NetSpec, _ key: String) throws(ControlError) {
        // What the kernel takes as the name of an interface (net/core/dev.c, dev_valid_name).
        let plain = net.tap.utf8.allSatisfy { 0x21...0x7E ~= $0 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: "%") }
        try require(
            plain && 1...15 ~= net.tap.utf8.count && net.tap != "." && net.tap != "..", "\(key).tap",
            "an interface's name has 1 to 15 printable characters, none of them a blank, \"/\", \":\" or \"%\"")
        if let mac = net.mac {
            guard let bytes = MACAddress.bytes(mac) else {
                throw .invalidSpec(key: "\(key).mac", reason: "it is not six bytes as in 52:54:00:12:34:56")
            }
            try require(bytes[0] & 1 == 0, "\(key).mac", "\(mac) is a group's address; the first byte of an interface's own is even")
            try require(bytes.contains { $0 != 0 }, "\(key).mac", "\(mac) is nobody's address")
        }
        if let queues = net.queues { try require(NetSpec.queueRange ~= queues, "\(key).queues", "\(queues) is not between 1 and 8") }
        if let mtu = net.mtu {
            let range = NetSpec.mtuRange
            try require(range ~= mtu, "\(key).mtu", "\(mtu) is not between \(range.lowerBound) and \(range.upperBound)")
        }
    }

    private func validate(_ console: PortsSpec, _ key: String) throws(ControlError) {
        try require(PortsSpec.portRange ~= console.ports.count, "\(key).ports", "a console has 1 to 8 ports, not \(console.ports.count)")
        var names = Set<String>()
        for (index, port) in console.ports.enumerated() {
            let key = "\(key).ports[\(index)]"
            try require(
                1...64 ~= port.name.utf8.count && port.name.utf8.allSatisfy { 0x21...0x7E ~= $0 }, "\(key).name",
                "a port's name has 1 to 64 printable ASCII characters and no blank")
            try require(names.insert(port.name).inserted, "\(key).name", "\"\(port.name)\" is another port's name already")
            try validateSocket(port.socket, "\(key).socket")
        }
    }

    /// A socket's path fits into `sockaddr_un` (unix(7)).
    func validateSocket(_ path: String?, _ key: String) throws(ControlError) {
        guard let path else { return }
        try validatePath(path, key)
        try require(path.utf8.count <= 107, key, "a socket's path has at most 107 bytes")
    }

    /// One list of CPUs for each vCPU.
    func validateAffinity() throws(ControlError) {
        guard let lists = vcpuAffinity else { return }
        try require(lists.count == vcpus, "vcpu-affinity", "\(lists.count) lists of CPUs, and the machine has \(vcpus) vCPUs")
        for (index, cpus) in lists.enumerated() {
            try require(!cpus.isEmpty, "vcpu-affinity[\(index)]", "it names no CPU")
            try require(cpus.allSatisfy { 0...1023 ~= $0 }, "vcpu-affinity[\(index)]", "a CPU has a number between 0 and 1023")
        }
    }
}
