import Control
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
            ("vcpus", { $0.vcpus = 0 }), ("vcpus", { $0.vcpus = 255 }), ("memory.size", { $0.memory.sizeBytes = 0 }),
            ("memory.size", { $0.memory.sizeBytes = .max }), ("memory.size", { $0.memory.sizeBytes = (2 << 20) + 1 }),
            ("memory.size", { $0.memory = MemorySpec(sizeBytes: 3 << 20, pages: .huge2MiB) }), ("boot.kernel", { $0.boot.kernel = "vmlinuz" }),
            ("boot.initrd", { $0.boot.initrd = "" }), ("image", { $0.image = "x" }), ("console.socket", { $0.console?.socket = "x" }),
            ("boot.kernel", { $0.boot.kernel = "/a\0b" }), ("boot.cmdline", { $0.boot.cmdline = String(repeating: "x", count: 2048) }),
            ("upgrade.blackout-budget", { $0.upgrade.blackoutBudgetNanoseconds = 0 }),
            ("upgrade.soak.duration", { $0.upgrade.soak.durationMilliseconds = -1 }),
        ] as [(String, @Sendable (inout MachineSpec) -> Void)])
    func impossible(key: String, change: @Sendable (inout MachineSpec) -> Void) {
        var spec = Samples.spec
        change(&spec)
        let error = #expect(throws: ControlError.self) { try spec.validate() }
        guard case .invalidSpec(let found, _)? = error else { return }
        #expect(found == key)
    }
}
