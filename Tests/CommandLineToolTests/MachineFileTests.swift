@testable import CommandLineTool
import Control
import Testing

@Suite("Machine files")
struct MachineFileTests {
    private static let valid = """
        name: web1
        vcpus: 4
        memory: {size: 8GiB, pages: 2MiB, prefault: true}
        boot: {kernel: vmlinuz, initrd: ../initrd.img, cmdline: "console=ttyS0 & more"}
        console: {socket: /run/web1.console}
        image: /usr/lib/baton/images/baton-vmm-0.1.0
        vcpu-affinity: [[0, 1], [0, 1], [2], [3]]
        devices:
          - disk: {path: web1.raw, serial: web1-root}
          - disk: {path: /dev/vdb, read-only: true, queues: 1}
          - net: {tap: tap-web1, mac: "52:54:00:12:34:56", queues: 2, mtu: 9000}
          - console: {ports: [{name: org.example.agent, socket: /run/web1.agent}]}
          - rng: {}
          - vfio: {address: 0000:06:00.0}
          - vfio: {address: 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001, backend: iommufd}
        upgrade:
          blackout-budget: 20ms
          io-hold-budget: 500ms
          soak: {duration: 2min, on-failure: keep}
          on-crash: reset
          only-upgradable: true
        """

    private static let small = "name: a\nvcpus: 1\nmemory: {size: 64MiB}\nboot: {kernel: /k}\n"

    private func fault(_ text: String) -> String {
        do throws(MachineFileFault) {
            return "accepted: \(try MachineFile.read(text, name: "web1.yaml", directory: "/srv/guests"))"
        } catch {
            return error.description
        }
    }

    @Test("a file with every key is read in full, relative paths from its directory")
    func everyKey() throws {
        let spec = try MachineFile.read(Self.valid, name: "web1.yaml", directory: "/srv/guests")
        #expect(
            spec
                == MachineSpec(
                    name: "web1", vcpus: 4, memory: MemorySpec(sizeBytes: 8 << 30, pages: .huge2MiB, prefault: true),
                    boot: BootSpec(kernel: "/srv/guests/vmlinuz", initrd: "/srv/initrd.img", cmdline: "console=ttyS0 & more"),
                    console: ConsoleSpec(socket: "/run/web1.console"), image: "/usr/lib/baton/images/baton-vmm-0.1.0",
                    devices: [
                        .disk(DiskSpec(path: "/srv/guests/web1.raw", serial: "web1-root")),
                        .disk(DiskSpec(path: "/dev/vdb", readOnly: true, queues: 1)),
                        .net(NetSpec(tap: "tap-web1", mac: "52:54:00:12:34:56", queues: 2, mtu: 9000)),
                        .console(PortsSpec(ports: [.init(name: "org.example.agent", socket: "/run/web1.agent")])), .rng(RandomSpec()),
                        .vfio(VFIOSpec(address: "0000:06:00.0")),
                        .vfio(VFIOSpec(address: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", backend: .iommufd)),
                    ], vcpuAffinity: [[0, 1], [0, 1], [2], [3]], onCrash: .reset,
                    upgrade: UpgradePolicy(
                        blackoutBudgetNanoseconds: 20_000_000, ioHoldBudgetNanoseconds: 500_000_000,
                        soak: SoakPolicy(durationMilliseconds: 120_000, onFailure: .keep),
                        onlyUpgradable: true)))
    }

    @Test("what may be left out has its default")
    func defaults() throws {
        let spec = try MachineFile.read(Self.small, name: "a.yaml", directory: "/")
        #expect(spec == MachineSpec(name: "a", vcpus: 1, memory: MemorySpec(sizeBytes: 64 << 20), boot: BootSpec(kernel: "/k")))
    }

    @Test("JSON is YAML too")
    func json() throws {
        let text = #"{"name":"a","vcpus":1,"memory":{"size":"64MiB"},"boot":{"kernel":"/k","cmdline":"a:b"}}"#
        #expect(try MachineFile.read(text, name: "a", directory: "/").boot.cmdline == "a:b")
    }

    @Test("an error names the file, the place, the key, and what is allowed", arguments: MachineFileFaults.table)
    func faults(change: MachineFileFaults.Case) {
        let text = Self.valid.replacing(change.old, with: change.new)
        #expect(text != Self.valid)
        #expect(fault(text) == change.message)
    }

    @Test(
        "a key that is missing is named with what it is for",
        arguments: [
            ("vcpus: 1\n", "web1.yaml:1:1: vcpus: missing: how many CPUs the guest has"),
            ("name: a\n", "web1.yaml:1:1: name: missing: what the machine is called"),
            ("memory: {size: 64MiB}\n", "web1.yaml:1:1: memory: missing: how much memory the guest has, as in {size: 1GiB}"),
            ("boot: {kernel: /k}\n", "web1.yaml:1:1: boot: missing: what the guest starts from, as in {kernel: vmlinuz}"),
        ])
    func missing(line: String, message: String) {
        #expect(fault(Self.small.replacing(line, with: "")) == message)
    }

    @Test(
        "what is not a mapping of keys is refused",
        arguments: [
            ("", "web1.yaml: empty; it needs at least name, vcpus, memory and boot"),
            ("# nothing\n", "web1.yaml: empty; it needs at least name, vcpus, memory and boot"),
            ("- a\n", "web1.yaml:1:1: a list where keys are expected: name, vcpus, vcpu-affinity, memory, boot, console, image, devices, upgrade"),
            (
                "hello",
                "web1.yaml:1:1: a single value where keys are expected: name, vcpus, vcpu-affinity, memory, boot, console, image, devices, upgrade"
            ),
            ("a: [", "web1.yaml:2:1: not YAML: did not find expected node content"),
            ("a: 1\n---\nb: 2\n", "web1.yaml:2:1: not YAML: but found another document"),
            ("a: \u{1}", "web1.yaml: not YAML: control characters are not allowed"),
            ("? [a, b]\n: c\n", "web1.yaml:1:3: a key must be a word"),
        ])
    func notAMapping(text: String, message: String) {
        #expect(fault(text) == message)
    }

    @Test("aliases are refused before anything expands them")
    func bomb() {
        var text = "a0: &a0 [x, x]\n"
        for index in 1...40 { text += "a\(index): &a\(index) [*a\(index - 1), *a\(index - 1)]\n" }
        #expect(fault(text) == "web1.yaml:1:5: anchors (&) are not allowed in a machine file; put the text in quotes if it is meant as text")
        #expect(fault("name: *x").hasPrefix("web1.yaml:1:7: aliases (*)"))
        #expect(fault("<<: {a: 1}").hasPrefix("web1.yaml:1:1: unknown key \"<<\""))
        #expect(fault("name: !!binary x").hasPrefix("web1.yaml:1:7: tags (!)"))
        #expect(fault("x: [a, {b: *c}]").hasPrefix("web1.yaml:1:12: aliases (*)"))
        #expect(fault("x: 'it''s'\ny: *z").hasPrefix("web1.yaml:2:4: aliases (*)"))
        #expect(fault("x: \"a\\\\\"\ny: *z").hasPrefix("web1.yaml:2:4: aliases (*)"))
        #expect(fault("x: a:\"b\ny: *z").hasPrefix("web1.yaml:2:4: aliases (*)"))
    }

    @Test("ampersands and stars inside text are text")
    func innocent() throws {
        let text = Self.small.replacing("{kernel: /k}", with: "\n  kernel: /k\n  cmdline: a & b * c ! d # &e\n")
        #expect(try MachineFile.read(text, name: "a", directory: "/").boot.cmdline == "a & b * c ! d")
    }

    @Test("a file longer than 1 MiB, or nested without end, is refused")
    func oversized() {
        #expect(fault("#" + String(repeating: " ", count: 1 << 20)) == "web1.yaml: longer than 1 MiB")
        #expect(fault(String(repeating: "[", count: 500_000)).contains("not YAML"))
        #expect(fault(String(repeating: "- ", count: 500_000)).contains("not YAML"))
    }

    @Test("no truncation of a file traps, and none is taken for another machine")
    func truncations() {
        let bytes = Array(Self.valid.utf8)
        for length in 0..<bytes.count {
            let text = String(decoding: bytes[..<length], as: UTF8.self)
            if let spec = try? MachineFile.read(text, name: "a", directory: "/") { #expect(spec.name == "web1" && spec.vcpus == 4) }
        }
    }
}

/// One thing wrong with the valid file, and what is said about it.
enum MachineFileFaults {
    struct Case: Sendable, CustomTestStringConvertible {
        let old: String
        let new: String
        let message: String

        init(_ old: String, _ new: String, _ message: String) {
            self.old = old
            self.new = new
            self.message = "web1.yaml:" + message
        }

        var testDescription: String { new }
    }

    private static let disk = "disk: {path: web1.raw, serial: web1-root}"

    static let table = [
        Case("pages: 2MiB", "pages: 3MiB", #"3:29: memory.pages: "3MiB" is not a page size this machine has; use 4KiB, thp, 2MiB or 1GiB"#),
        Case("size: 8GiB", "size: 8GB", #"3:16: memory.size: "8GB" is not a size; write a whole number and B, KiB, MiB, GiB or TiB, as in 8GiB"#),
        Case("size: 8GiB", "size: 8193KiB", "3:16: memory.size: not a whole number of 2MiB pages"),
        Case(
            "size: 8GiB", "size: 99999999999999TiB",
            #"3:16: memory.size: "99999999999999TiB" is not a size; write a whole number and B, KiB, MiB, GiB or TiB, as in 8GiB"#),
        Case("size: 8GiB", "size: 0", "3:16: memory.size: not between 2MiB and 4TiB"),
        Case("size: 8GiB", "size: [8]", "3:16: memory.size: a list where text is expected"),
        Case("size: 8GiB, ", "", "3:9: memory.size: missing: how much memory the guest has, as in 1GiB"),
        Case("prefault: true", "prefault: yes", #"3:45: memory.prefault: "yes" is neither true nor false"#),
        Case("prefault: true", #"prefault: "true""#, #"3:45: memory.prefault: "true" is text, not true or false; write it without quotes"#),
        Case("vcpus: 4", "vcpus: four", #"2:8: vcpus: "four" is not a number of CPUs"#),
        Case("vcpus: 4", #"vcpus: "4""#, #"2:8: vcpus: "4" is text, not a number of CPUs; write it without quotes"#),
        Case("vcpus: 4", "vcpus: 0", "2:8: vcpus: 0 is not a number of CPUs between 1 and 64"),
        Case("vcpus: 4", "vcpus: 4.5", #"2:8: vcpus: "4.5" is not a number of CPUs"#),
        Case("vcpus: 4", "vcpus: 99999999999999999999", #"2:8: vcpus: "99999999999999999999" is not a number of CPUs"#),
        Case("vcpus: 4", "vcpus:", "2:7: vcpus: empty; give it a value or leave the key out"),
        Case(
            "vcpus: 4", "vcpu: 4",
            #"2:1: unknown key "vcpu"; did you mean vcpus? Allowed: name, vcpus, vcpu-affinity, memory, boot, console, image, devices, upgrade"#),
        Case(
            "vcpus: 4", "colour: red",
            #"2:1: unknown key "colour". Allowed: name, vcpus, vcpu-affinity, memory, boot, console, image, devices, upgrade"#),
        Case("vcpus: 4", "vcpus: 4\nname: web2", #"3:1: key "name" is there twice"#),
        Case("kernel: vmlinuz", "kernel: vmlinuz, kernel: b", #"4:25: key "kernel" is there twice"#),
        Case("kernel: vmlinuz", "kernle: vmlinuz", #"4:8: boot: unknown key "kernle"; did you mean kernel? Allowed: kernel, initrd, cmdline"#),
        Case("kernel: vmlinuz, ", "", "4:7: boot.kernel: missing: a bzImage, or an ELF file with a PVH entry"),
        Case(
            "name: web1", "name: Web 1",
            #"1:7: name: "Web 1": a name has 1 to 63 lower-case letters, digits, "-", "_" or ".", and begins with a letter or digit"#),
        Case("20ms", "20", #"17:20: upgrade.blackout-budget: "20" is not a duration; write a whole number and ns, us, ms, s, min or h, as in 50ms"#),
        Case("20ms", "2h", "17:20: upgrade.blackout-budget: not between 1ns and 1min"),
        Case(
            "duration: 2min", "duration: 1.5s",
            #"19:20: upgrade.soak.duration: "1.5s" is not a duration; write a whole number and ns, us, ms, s, min or h, as in 50ms"#),
        Case("duration: 2min", "duration: 25h", "19:20: upgrade.soak.duration: longer than 24h"),
        Case("duration: 2min", "duration: 10us", "19:20: upgrade.soak.duration: not a whole number of milliseconds"),
        Case("on-failure: keep", "on-failure: panic", #"19:38: upgrade.soak.on-failure: "panic" is not a known answer; use revert or keep"#),
        Case(
            "on-failure: keep", "probe: {tcp: \"10.0.0.5:443\"}",
            "19:33: upgrade.soak.probe: not supported yet by this version; soak watches the worker and its vCPUs"),
        Case("on-crash: reset", "on-crash: rescue", "20:13: upgrade.on-crash: rescue is not supported yet by this version; use reset or stop"),
        Case("on-crash: reset", "on-crash: explode", #"20:13: upgrade.on-crash: "explode" is not a crash policy; use reset or stop"#),
        Case(disk, "disk: {serial: s}", "9:11: devices[0].disk.path: missing: a raw file or a block device"),
        Case(disk, "dsik: {path: d}", #"9:5: devices[0]: "dsik" is not a device; did you mean disk? There are disk, net, console, rng and vfio"#),
        Case(disk, "toaster: 1", #"9:5: devices[0]: "toaster" is not a device; there are disk, net, console, rng and vfio"#),
        Case(
            disk, "vfio: {address: 6:0.0}",
            "9:21: devices[0].vfio.address: it is neither a PCI address in full, as in 0000:06:00.0, nor the UUID of a mediated device, in lower case"
        ),
        Case(disk, "vfio: {backend: auto}", "9:11: devices[0].vfio.address: missing: where the device is on this host, as in 0000:06:00.0"),
        Case(
            disk, "vfio: {address: 0000:06:00.0, backend: type1}",
            #"9:44: devices[0].vfio.backend: "type1" is not a way to map a device's memory; use auto, iommufd or container"#),
        Case(disk, "vfio: {address: 0000:06:00.0}", "14:21: devices[5].vfio.address: 0000:06:00.0 is devices[0].vfio already"),
        Case(disk, "rng", "9:5: devices[0]: not a device; an entry is a kind and its keys, as in rng: {}"),
        Case("- \(disk)", "- []", "9:5: devices[0]: not a device; an entry is a kind and its keys, as in disk: {path: web1.raw}"),
        Case(disk, "disk: {path: d}\n    rng: {}", #"9:5: devices[0]: 2 keys where one device is expected; begin the next with "- ""#),
        Case(
            disk, "disk: {path: d, readonly: true}",
            #"9:21: devices[0].disk: unknown key "readonly"; did you mean read-only? Allowed: path, read-only, serial, queues"#),
        Case(disk, "disk: d", "9:11: devices[0].disk: a single value where keys are expected: path, read-only, serial, queues"),
        Case(
            "web1-root", "web1-root-of-the-first", "9:36: devices[0].disk.serial: it has more than 20 characters, or one that is not printable ASCII"),
        Case("read-only: true, queues: 1", "queues: 12", "10:36: devices[1].disk.queues: 12 is not between 1 and 8"),
        Case("read-only: true, queues: 1", "queues: all", #"10:36: devices[1].disk.queues: "all" is not a number of queues"#),
        Case("52:54:00:12:34:56", "52:54:00:12:34", "11:31: devices[2].net.mac: it is not six bytes as in 52:54:00:12:34:56"),
        Case(
            "52:54:00:12:34:56", "53:54:00:12:34:56",
            "11:31: devices[2].net.mac: 53:54:00:12:34:56 is a group's address; the first byte of an interface's own is even"),
        Case("tap: tap-web1, ", "", "11:10: devices[2].net.tap: missing: the name of a tap interface, as in tap-web1"),
        Case(
            "tap: tap-web1", "tap: tap-of-the-web-1",
            #"11:16: devices[2].net.tap: an interface's name has 1 to 15 printable characters, none of them a blank, "/", ":" or "%""#),
        Case("mtu: 9000", "mtu: 9", "11:68: devices[2].net.mtu: 9 is not between 68 and 65521"),
        Case("[{name: org.example.agent, socket: /run/web1.agent}]", "[]", "12:22: devices[3].console.ports: a console has 1 to 8 ports, not 0"),
        Case(
            "[{name: org.example.agent, socket: /run/web1.agent}]", "agent",
            #"12:22: devices[3].console.ports: not a list; each entry begins with "- ""#),
        Case(", socket: /run/web1.agent", "", "12:23: devices[3].console.ports[0].socket: missing: the path of a socket on this host"),
        Case(
            "socket: /run/web1.agent", "socket: /run/web1.console",
            "12:57: devices[3].console.ports[0].socket: /run/web1.console is the socket of console.socket already"),
        Case("rng: {}", "rng: {seed: 1}", #"13:11: devices[4].rng: unknown key "seed". Allowed: none"#),
        Case("rng: {}", "rng: on", "13:10: devices[4].rng: a single value where {} is expected"),
        Case("[2], [3]]", "[2]]", "7:16: vcpu-affinity: 3 lists of CPUs, and the machine has 4 vCPUs"),
        Case("[2], [3]]", "[2], 3]", "7:38: vcpu-affinity[3]: not a list of CPUs; each vCPU has its own, as in [[0, 1], [2]]"),
        Case("[2], [3]]", "[2], [x]]", "7:39: vcpu-affinity[3]: not the number of a CPU"),
        Case("[2], [3]]", "[2], []]", "7:38: vcpu-affinity[3]: it names no CPU"),
        Case("500ms", "2h", "18:19: upgrade.io-hold-budget: not between 1ns and 1min"),
        Case("console: {socket: /run/web1.console}", "console: on", "5:10: console: a single value where keys are expected: socket"),
    ]
}
