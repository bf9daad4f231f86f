import Handover
import Testing
import Wire

@Suite struct DeviceSpecificationTests {
    static let everyKind: [DeviceSpecification] = [
        .disk(DiskSpecification(readOnly: true, serial: "12345678901234567890", queues: 8)),
        .network(NetworkSpecification(mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56], queuePairs: 8, mtu: 9000)),
        .console(ConsoleSpecification(ports: ["org.example.agent", "log"])), .entropy,
        .passthrough(VFIOSpecification(address: "0000:06:00.0", backend: .iommufd(ioas: 7), vectors: 2048)),
        .passthrough(VFIOSpecification(address: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", backend: .container, vectors: 0)),
    ]

    private func decoded(_ devices: [DeviceSpecification]) throws -> [DeviceSpecification] {
        var writer = WireWriter()
        DeviceSpecification.encode(devices, to: &writer)
        var reader = WireReader(writer.bytes)
        let list = try DeviceSpecification.list(from: &reader)
        try reader.finish()
        return list
    }

    @Test func theyReadBackInTheirOrder() throws {
        #expect(try decoded(Self.everyKind) == Self.everyKind)
        #expect(try decoded(Self.everyKind.reversed()) == Self.everyKind.reversed())
        #expect(try decoded([]).isEmpty)
    }

    @Test(arguments: [
        DeviceSpecification.disk(DiskSpecification(serial: "123456789012345678901")), .disk(DiskSpecification(serial: "grün")),
        .disk(DiskSpecification(serial: "a\u{0}b")), .disk(DiskSpecification(queues: 0)), .disk(DiskSpecification(queues: 9)),
        .network(NetworkSpecification(mac: [0, 0, 0, 0, 0, 0])), .network(NetworkSpecification(mac: [1, 0, 0, 0, 0, 1])),
        .network(NetworkSpecification(mac: [2, 0, 0, 0, 0, 1], queuePairs: 0)),
        .network(NetworkSpecification(mac: [2, 0, 0, 0, 0, 1], queuePairs: 9)), .network(NetworkSpecification(mac: [2, 0, 0, 0, 0, 1], mtu: 67)),
        .network(NetworkSpecification(mac: [2, 0, 0, 0, 0, 1], mtu: 65522)), .console(ConsoleSpecification(ports: [])),
        .console(ConsoleSpecification(ports: [""])), .console(ConsoleSpecification(ports: ["a", "a"])),
        .console(ConsoleSpecification(ports: (0..<9).map { "p\($0)" })),
        .passthrough(VFIOSpecification(address: String(repeating: "0", count: 65), backend: .container, vectors: 1)),
        .passthrough(VFIOSpecification(address: "0000:06:00.0\n", backend: .container, vectors: 1)),
        .passthrough(VFIOSpecification(address: "0000:06:00.0", backend: .iommufd(ioas: 1), vectors: 2049)),
        .console(ConsoleSpecification(ports: [String(repeating: "p", count: 65)])), .console(ConsoleSpecification(ports: ["new\nline"])),
    ])
    func whatIsBeyondTheLimitsIsRefused(device: DeviceSpecification) {
        #expect(throws: WireError.self) { try decoded([device]) }
    }

    @Test func moreDevicesThanThereAreSlotsAreRefused() throws {
        #expect(try decoded(Array(repeating: .entropy, count: 30)).count == 30)
        #expect(throws: WireError.self) { try decoded(Array(repeating: .entropy, count: 31)) }
    }

    /// The largest machine: its power-on order goes in one message, its descriptors in lists that a message can carry.
    @Test func theLargestMachineFitsInOneMessage() throws {
        let ports = (0..<8).map { "\($0)" + String(repeating: "x", count: 63) }
        let specification = StartSpecification(
            machineID: Array(repeating: 0, count: 16), name: String(repeating: "n", count: 64), vcpus: 254, memory: 1 << 40,
            commandLine: String(repeating: "c", count: 4096), affinities: Array(repeating: Array(repeating: .max, count: 16), count: 254),
            devices: Array(repeating: .console(ConsoleSpecification(ports: ports)), count: 30))
        var writer = WireWriter()
        Message(Order.start(specification), generation: 1, sequence: 1).encode(to: &writer)
        #expect(writer.count < Envelope.maximumLength)
    }

    @Test func slotsSayDeviceAndQueueOrPort() {
        #expect(ManifestEntry.disk(device: 29, writable: false) == ManifestEntry(name: "disk-29", kind: .disk, slot: 29, writable: false))
        #expect(ManifestEntry.tap(device: 2, queue: 7).slot == 0x207)
        #expect(ManifestEntry.consolePort(device: 1, port: 3).slot == 0x103)
        #expect(ManifestEntry.interruptEvent(device: 29, vector: 2047).slot == 0x1D_07FF)
        #expect(ManifestEntry.unmaskEvent(device: 29).slot == 0x1D_8000)
        #expect(ManifestEntry.vfioDevice(3).slot == 3 && ManifestEntry.vfioGroup(device: 3).slot == 3)
    }

    /// No two descriptors of a machine go by the same name, or by the same kind and slot.
    @Test func whatIsLentForPassedThroughDevicesIsToldApart() {
        let entries = (0..<30).flatMap { device in
            [.vfioDevice(device), .vfioGroup(device: device), .unmaskEvent(device: device)]
                + (0..<64).map { ManifestEntry.interruptEvent(device: device, vector: $0) }
        }
        #expect(Set(entries.map(\.name)).count == entries.count)
        #expect(Set(entries.map { "\($0.kind) \($0.slot)" }).count == entries.count)
    }
}
