import Control
import FoundationEssentials
import Testing

@Suite("Machine specification")
struct MachineSpecTests {
    @Test("a plain one is accepted")
    func plain() throws { try Samples.spec.validate() }

    @Test(
        "an impossible one is refused with its key",
        arguments: [
            ("name", { @Sendable (spec: inout MachineSpec) in spec.name = "../x" }), ("name", { $0.name = "" }), ("name", { $0.name = "Web" }),
            ("name", { $0.name = ".hidden" }), ("name", { $0.name = String(repeating: "a", count: 64) }), ("name", { $0.name = "é" }),
            ("vcpus", { $0.vcpus = 0 }), ("vcpus", { $0.vcpus = 65 }), ("memory.size", { $0.memory.sizeBytes = 0 }),
            ("memory.size", { $0.memory.sizeBytes = .max }), ("memory.size", { $0.memory.sizeBytes = (2 << 20) + 1 }),
            ("memory.size", { $0.memory = MemorySpec(sizeBytes: 3 << 20, pages: .huge2MiB) }), ("boot.kernel", { $0.boot.kernel = "vmlinuz" }),
            ("boot.initrd", { $0.boot.initrd = "" }), ("image", { $0.image = "x" }), ("console.socket", { $0.console?.socket = "x" }),
            ("boot.kernel", { $0.boot.kernel = "/a\0b" }), ("boot.cmdline", { $0.boot.cmdline = String(repeating: "x", count: 2048) }),
            ("upgrade.blackout-budget", { $0.upgrade.blackoutBudgetNanoseconds = 0 }),
            ("upgrade.io-hold-budget", { $0.upgrade.ioHoldBudgetNanoseconds = 0 }),
            ("console.socket", { $0.console?.socket = "/" + String(repeating: "x", count: 107) }),
            ("vcpu-affinity", { $0.vcpuAffinity = [] }), ("vcpu-affinity[0]", { $0.vcpuAffinity = Array(repeating: [], count: $0.vcpus) }),
            ("vcpu-affinity[0]", { $0.vcpuAffinity = Array(repeating: [1024], count: $0.vcpus) }),
            ("upgrade.soak.duration", { $0.upgrade.soak.durationMilliseconds = -1 }),
        ] as [(String, @Sendable (inout MachineSpec) -> Void)])
    func impossible(key: String, change: @Sendable (inout MachineSpec) -> Void) {
        var spec = Samples.spec
        change(&spec)
        let error = #expect(throws: ControlError.self) { try spec.validate() }
        guard case .invalidSpec(let found, _)? = error else { return }
        #expect(found == key)
    }

    private static let net = NetSpec(tap: "t0")
    private static let port = PortsSpec.Port(name: "a", socket: "/s")

    @Test(
        "an impossible device is refused with its key",
        arguments: [
            ("devices[0].disk.path", .disk(DiskSpec(path: "web1.raw"))), ("devices[0].disk.serial", .disk(DiskSpec(path: "/d", serial: "ü"))),
            ("devices[0].disk.serial", .disk(DiskSpec(path: "/d", serial: String(repeating: "x", count: 21)))),
            ("devices[0].disk.queues", .disk(DiskSpec(path: "/d", queues: 0))), ("devices[0].disk.queues", .disk(DiskSpec(path: "/d", queues: 9))),
            ("devices[0].net.tap", .net(NetSpec(tap: ""))), ("devices[0].net.tap", .net(NetSpec(tap: "../tap0"))),
            ("devices[0].net.tap", .net(NetSpec(tap: "a234567890123456"))), ("devices[0].net.tap", .net(NetSpec(tap: "tap%d"))),
            ("devices[0].net.mac", .net(NetSpec(tap: "t0", mac: "52:54:00:12:34"))),
            ("devices[0].net.mac", .net(NetSpec(tap: "t0", mac: "+2:54:00:12:34:56"))),
            ("devices[0].net.mac", .net(NetSpec(tap: "t0", mac: "53:54:00:12:34:56"))),
            ("devices[0].net.mac", .net(NetSpec(tap: "t0", mac: "00:00:00:00:00:00"))),
            ("devices[0].net.queues", .net(NetSpec(tap: "t0", queues: 9))), ("devices[0].net.mtu", .net(NetSpec(tap: "t0", mtu: 67))),
            ("devices[0].net.mtu", .net(NetSpec(tap: "t0", mtu: 65522))), ("devices[0].console.ports", .console(PortsSpec(ports: []))),
            ("devices[0].console.ports", .console(PortsSpec(ports: Array(repeating: port, count: 9)))),
            ("devices[0].console.ports[1].name", .console(PortsSpec(ports: [port, port]))),
            ("devices[0].console.ports[1].socket", .console(PortsSpec(ports: [port, .init(name: "b", socket: "/s")]))),
            ("devices[0].console.ports[0].name", .console(PortsSpec(ports: [.init(name: "a b", socket: "/s")]))),
            ("devices[0].console.ports[0].socket", .console(PortsSpec(ports: [.init(name: "a", socket: "s")]))),
        ] as [(String, DeviceSpec)])
    func impossibleDevice(key: String, device: DeviceSpec) {
        var spec = Samples.spec
        spec.devices = [device]
        let error = #expect(throws: ControlError.self) { try spec.validate() }
        guard case .invalidSpec(let found, _)? = error else { return }
        #expect(found == key)
    }

    @Test("what two devices cannot share, and more devices than there is room for, are refused")
    func together() throws {
        var spec = Samples.spec
        spec.devices = Array(repeating: .rng(RandomSpec()), count: 30)
        try spec.validate()
        spec.devices?.append(.rng(RandomSpec()))
        #expect(throws: ControlError.invalidSpec(key: "devices", reason: "31 devices, and a machine has room for 30")) { try spec.validate() }
        spec.devices = [.net(Self.net), .net(Self.net)]
        #expect(throws: ControlError.invalidSpec(key: "devices[1].net.tap", reason: "t0 is behind devices[0].net already")) { try spec.validate() }
        spec.console = ConsoleSpec(socket: "/s")
        spec.devices = [.console(PortsSpec(ports: [Self.port]))]
        #expect(throws: ControlError.invalidSpec(key: "devices[0].console.ports[0].socket", reason: "/s is the socket of console.socket already")) {
            try spec.validate()
        }
    }

    @Test("addresses of passed-through devices are those of sysfs")
    func passedThrough() {
        for good in ["0000:06:00.0", "0000:ff:1f.7", "10000:e1:00.0"] { #expect(VFIOSpec(address: good).isPCI, "\(good)") }
        for bad in ["06:00.0", "0000:06:00.8", "0000:06:00", "0000:6:00.0", "0000:06:00.0 ", "0000:06:00.00", "0000:0A:00.0", "../0000:06:00.0", ""] {
            #expect(!VFIOSpec(address: bad).isPCI && !VFIOSpec(address: bad).isMediated, "\(bad)")
        }
        #expect(VFIOSpec(address: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001").isMediated)
        #expect(!VFIOSpec(address: "83B8F4F2-509f-382f-3c1e-e6bfe0fa1001").isMediated && !VFIOSpec(address: "----").isMediated)
    }

    @Test("what is left open is settled: PCI addresses, queues, MTU and an address of its own")
    func settled() {
        var spec = Samples.spec
        spec.vcpus = 2
        spec.devices = [.disk(DiskSpec(path: "/d"))] + Array(repeating: .net(Self.net), count: 15)
        let devices = spec.settledDevices
        #expect(devices.map(\.address).prefix(2) == ["00:01.0", "00:02.0"] && devices.map(\.address).suffix(2) == ["00:0f.0", "00:10.0"])
        #expect(devices[0].spec == .disk(DiskSpec(path: "/d", queues: 2)))
        let addresses = devices.compactMap { if case .net(let net) = $0.spec { net.mac } else { nil } }
        #expect(Set(addresses).count == 15)
        for address in addresses { #expect(MACAddress.bytes(address).map { $0[0] & 3 } == 2) }
        // Pinned: a guest knows its interfaces by them.
        #expect(MACAddress.derived(machine: "web1", index: 1) == MACAddress.derived(machine: "web1", index: 1))
        #expect(MACAddress.text(MACAddress.bytes("52:54:00:AB:cd:ef") ?? []) == "52:54:00:ab:cd:ef")
    }

    @Test("a device reads back as it was written, and one of no kind or two is refused")
    func coding() throws {
        let devices: [DeviceSpec] = [
            .disk(DiskSpec(path: "/d", readOnly: true, serial: "s", queues: 1)), .net(NetSpec(tap: "t", mac: "m", queues: 2, mtu: 9000)),
            .console(PortsSpec(ports: [Self.port])), .rng(RandomSpec()),
            .vfio(VFIOSpec(address: "0000:06:00.0", backend: .container)),
        ]
        let bytes = try JSONEncoder().encode(devices)
        #expect(try JSONDecoder().decode([DeviceSpec].self, from: bytes) == devices)
        for text in ["{}", #"{"rng":null}"#, #"{"rng":{},"disk":{"path":"/d","readOnly":true}}"#] {
            #expect(throws: DecodingError.self) { try JSONDecoder().decode(DeviceSpec.self, from: Data(text.utf8)) }
        }
    }
}
