import Glibc
import Handover
import LinuxSystem
import Testing

@testable import VMM

/// A real operating system as guest. Needs KVM that runs one, and the lab's kernel.
@Suite(.serialized, .enabled(if: LinuxGuest.isThere, "Linux guests run in the lab"))
struct LinuxGuestKVMTests {
    @Test(.timeLimit(.minutes(5)))
    func `a bzImage with initial RAM disk boots, counts through handovers and resets`() throws {
        let bench = try Bench(memory: 256 << 20)
        var worker = try bench.worker(generation: 1, kernel: LinuxGuest.kernel, initialRAMDisk: LinuxGuest.initialRAMDisk())
        let line = "console=ttyS0 earlyprintk=serial panic=-1 reboot=k"
        guard case .running = try worker.order(.start(bench.specification(line)), timeout: .seconds(30)) else { throw VMMError("it does not start") }
        func wait(for text: String, seconds: Int) -> Bool {
            for _ in 0..<seconds * 20 {
                if bench.output.contains(text) { return true }
                SystemClock.sleep(.milliseconds(50))
            }
            return false
        }
        try #require(wait(for: "guest-init: count 5 ", seconds: 200), "\(bench.output)")
        for generation in 2...6 {
            let next = try bench.worker(generation: UInt32(generation), kernel: LinuxGuest.kernel)
            print(try bench.handOver(from: worker, to: next).line)
            try worker.retire()
            worker = next
            SystemClock.sleep(.milliseconds(300))
        }
        try #require(wait(for: "guest-init: bye", seconds: 100), "\(bench.output)")
        let output = bench.output
        #expect(output.contains("Command line: \(line)"))
        for count in 0..<40 { #expect(output.contains("guest-init: count \(count) at "), "\(output)") }
        #expect(!output.contains("soft lockup") && !output.contains("rcu: INFO") && !output.contains("unexpected irq"), "\(output)")
        #expect(try worker.next(timeout: .seconds(60)) == .resetRequested)
        try worker.retire()
    }

    @Test(.timeLimit(.minutes(5)))
    func `a guest finds its virtio devices, and their bytes survive handovers`() throws {
        let bench = try Bench(memory: 256 << 20, devices: [.entropy, .console(ConsoleSpecification(ports: ["terminal", "data"]))])
        var worker = try bench.worker(generation: 1, kernel: LinuxGuest.kernel, initialRAMDisk: LinuxGuest.initialRAMDisk())
        let line = "console=ttyS0 earlyprintk=serial panic=-1"
        guard case .running = try worker.order(.start(bench.specification(line)), timeout: .seconds(30)) else { throw VMMError("it does not start") }
        try #require(bench.waitForOutput("guest-init: count 2 ", within: .seconds(200)), "\(bench.output)")
        for device in ["0000:00:00.0 0x0008", "0000:00:01.0 0x1044", "0000:00:02.0 0x1043"] {
            #expect(bench.output.contains("guest-init: pci \(device)"), "\(bench.output)")
        }
        #expect(bench.output.contains("guest-init: random bytes came"), "\(bench.output)")
        var sent: [UInt8] = []
        var received: [UInt8] = []
        var terminal: [UInt8] = []
        for port in bench.ports { try port.descriptor.setNonBlocking(true) }
        func collect() {
            received += (try? bench.ports[1].descriptor.read(upTo: 1 << 16)) ?? []
            terminal += (try? bench.ports[0].descriptor.read(upTo: 1 << 16)) ?? []
            SystemClock.sleep(.milliseconds(5))
        }
        func exchange(_ count: Int) {
            for number in 0..<count {
                let bytes = (0..<499).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number &+ sent.count) }
                sent += bytes.prefix((try? bench.ports[1].descriptor.write(bytes.span)) ?? 0)
                collect()
            }
        }
        for generation in 2...6 {
            exchange(10)
            let next = try bench.worker(generation: UInt32(generation), kernel: LinuxGuest.kernel)
            print(try bench.handOver(from: worker, to: next).line)
            try worker.retire()
            worker = next
        }
        for _ in 0..<4000 where received.count < sent.count || !String(decoding: terminal, as: UTF8.self).contains("count 39") { collect() }
        #expect(received == sent, "\(received.count) of \(sent.count) bytes came back")
        let text = String(decoding: terminal, as: UTF8.self)
        for count in 0..<40 { #expect(text.split(separator: "\r\n").count { $0 == "terminal: count \(count)" } == 1, "\(text)") }
        #expect(bench.waitForOutput("guest-init: bye", within: .seconds(100)), "\(bench.output)")
        #expect(try worker.next(timeout: .seconds(60)) == .resetRequested)
        try worker.retire()
    }
}

enum LinuxGuest {
    static let kernel = environment("BATON_LAB_KERNEL")
    static let isThere = Host.hasKVM && environment("BATON_IN_LAB") != "" && kernel != ""

    private static func environment(_ name: String) -> String { unsafe getenv(name).map { unsafe String(cString: $0) } ?? "" }

    /// An archive (newc cpio) with the lab's `guest-init` as `/init`.
    static func initialRAMDisk() throws -> [UInt8] {
        let program = try OwnedDescriptor.open(environment("BATON_LAB_TOOLS") + "/guest-init", followingLinks: true).readAll(limit: 16 << 20)
        return entry("init", mode: 0o100755, program) + entry("TRAILER!!!", mode: 0, [])
    }

    private static func entry(_ name: String, mode: UInt32, _ content: [UInt8]) -> [UInt8] {
        func field(_ value: Int) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }
        let fields = [1, Int(mode), 0, 0, 1, 0, content.count, 0, 0, 0, 0, name.utf8.count + 1, 0]
        var bytes = Array(("070701" + fields.map(field).joined() + name + "\0").utf8)
        func pad() { while bytes.count % 4 != 0 { bytes.append(0) } }
        pad()
        bytes += content
        pad()
        return bytes
    }
}
