internal import Devices
internal import Handover
internal import LinuxSystem
internal import SystemPackage

/// What is behind a machine's devices, found by kind and slot.
struct LentBackings: Sendable {
    private let backings: [ResourceKind: [UInt32: SharedDescriptor]]

    init(_ backings: [ResourceKind: [UInt32: SharedDescriptor]] = [:]) { self.backings = backings }

    /// What a manifest entry of this kind and slot names.
    func find(_ entry: ManifestEntry) throws(VMMError) -> SharedDescriptor {
        guard let found = backings[entry.kind]?[entry.slot] else { throw VMMError("\(entry.name) was not lent") }
        return found
    }
}

extension DeviceSpecification {
    /// The back end of device `index`, stopped.
    func makeBackEnd(_ index: Int, _ lent: LentBackings) throws(VMMError) -> any VirtioDevice {
        switch self {
        case .disk(let disk):
            let file = try lent.find(.disk(device: index, writable: !disk.readOnly))
            return try doing("using the disk that is device \(index)") { () throws(Errno) in
                VirtioBlock(try DiskFile(file, isReadOnly: disk.readOnly), serial: disk.serial, queues: Int(disk.queues))
            }
        case .network(let network):
            var taps: [SharedDescriptor] = []
            for pair in 0..<Int(network.queuePairs) { taps.append(try lent.find(.tap(device: index, queue: pair))) }
            return VirtioNetwork(taps: taps, mac: network.mac, mtu: network.mtu)
        case .console(let console):
            var ports: [(name: String, stream: SharedDescriptor)] = []
            for (port, name) in console.ports.enumerated() { ports.append((name, try lent.find(.consolePort(device: index, port: port)))) }
            return try doing("using the streams of device \(index)") { [ports] () throws(Errno) in try VirtioConsole(ports) }
        case .entropy: return VirtioEntropy()
        case .passthrough: throw VMMError("device \(index) is passed through and has no back end here")
        }
    }

    /// The sections of all back ends there are.
    static let backEndSections = [VirtioBlockState.section, VirtioNetworkState.section, VirtioConsoleState.section, VirtioEntropyState.section]

    /// For people.
    var description: String {
        switch self {
        case .disk(let disk): disk.serial.isEmpty ? "disk" : "disk \(disk.serial)"
        case .network: "network interface"
        case .console: "console"
        case .entropy: "entropy source"
        case .passthrough(let device): "passed-through device \(device.address)"
        }
    }
}
