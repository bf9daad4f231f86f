import Testing

/// The rules find what breaks them.
@Suite struct BrokenRuleTests {
    static let manifest = Manifest(
        """
        let yams = Target.Dependency.product(name: "Yams", package: "Yams")
        func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target { .target(name: name, dependencies: dependencies) }
            .target(name: "CLinux", cSettings: strictC),
            module("LinuxSystem", ["CLinux"]),
            // module("Commented", ["Yams"]),
            module("Wire"),
            module("Checkpoint", ["Wire"]),
            module("Handover", ["Wire"]),
            module("Control"),
            module("KVM", ["LinuxSystem"]),
            module("VMM", ["Checkpoint", "Handover", "KVM", "LinuxSystem", "Wire"]),
            module("Supervisor", [
                "Control", "Handover", "Checkpoint", yams,
            ]),
            module("SupervisorProgram", ["Supervisor"]),
            module("CommandLineTool", ["Control", yams]),
            program("baton-keep", ["LinuxSystem"]),
            program("batond", ["SupervisorProgram"]),
            program("baton-vmm", ["VMM"]),
            tests("WireTests", ["Wire"]),
        """)

    func rules(_ target: String, _ text: String) -> ImportRules {
        ImportRules(manifest: Self.manifest, files: [SourceFile(target: target, path: "Sources/\(target)/main.swift", text: text)])
    }

    @Test(arguments: [
        ("VMM", "import Yams", "VMM imports Yams, which Package.swift does not declare as its dependency"),
        ("VMM", "package import Devices", "VMM imports Devices, which Package.swift does not declare as its dependency"),
        ("VMM", "internal import Supervisor", "VMM must not import Supervisor"),
        ("VMM", "import Control", "VMM must not import Control"),
        ("Supervisor", "import CLinux", "Supervisor must not call C: CLinux"),
        ("LinuxSystem", "import Clibcap", "LinuxSystem must not call C: Clibcap"),
        ("Supervisor", "internal import Checkpoint", "Supervisor must not import Checkpoint"),
        ("Supervisor", "@testable import KVM", "Supervisor must not import KVM"),
        ("Supervisor", "public import struct Devices.Device", "Supervisor must not import Devices"),
        ("Supervisor", "@_spi(Inside) private import GuestMemory", "Supervisor must not import GuestMemory"),
        ("Supervisor", "import\n    Checkpoint", "Supervisor must not import Checkpoint"),
        ("Supervisor", "let a = 1; import Checkpoint", "Supervisor must not import Checkpoint"),
        ("Supervisor", "#if canImport(Foundation)\nimport Foundation\n#endif", "Supervisor imports Foundation; FoundationEssentials has to do"),
        ("Wire", "import Glibc", "Wire is pure and does not import Glibc"),
        ("Checkpoint", "import LinuxSystem", "Checkpoint is pure and does not import LinuxSystem"),
        ("Handover", "import FoundationEssentials", "Handover is pure and does not import FoundationEssentials"),
        ("Control", "import LinuxSystem", "Control is pure and does not import LinuxSystem"),
        ("Nowhere", "import Wire", "Nowhere is not declared in Package.swift"),
        ("Commented", "import Yams", "Commented is not declared in Package.swift"),
    ])
    func `a forbidden import is found`(target: String, text: String, reason: String) {
        #expect(rules(target, text).brokenImports.map(\.reason) == [reason])
    }

    @Test(arguments: [
        ("VMM", "package import Wire\ninternal import Synchronization"),
        ("Control", "internal import FoundationEssentials"),
        ("LinuxSystem", "import CLinux"),
        ("VMM", "// import Yams\n/* import Yams /* import Yams */ import Yams */"),
        ("VMM", "let text = \"import Yams\"; let raw = #\"\"import Yams\"#"),
        ("VMM", "let text = \"\"\"\n    import Yams \"quoted\"\n    \"\"\""),
        ("VMM", "order(.import, import: 1)"),
    ])
    func `what is allowed, or no import, is let through`(target: String, text: String) {
        #expect(rules(target, text).brokenImports == [])
    }

    @Test(arguments: [
        ("Wire", "let a = unsafe b", [1]),
        ("VMM", "// unsafe\nlet a = \"unsafe\"\nlet b = \"\\(unsafe c)\"", [3]),
        ("Supervisor", "@unsafe\nfunc f() {}", [1]),
        ("LinuxSystem", "let a = unsafe b", []),
    ])
    func `unsafe outside the kernel-facing modules is found`(target: String, text: String, lines: [Int]) {
        #expect(rules(target, text).brokenSafety.map(\.place) == lines.map { "Sources/\(target)/main.swift:\($0)" })
    }

    @Test func `what is reached through others is found`() {
        let broken = rules("VMM", "import FoundationEssentials").brokenReach.map(\.reason)
        #expect(broken.contains("Supervisor must not reach Checkpoint"))
        #expect(broken.contains("batond must not reach Yams"))
        #expect(broken.contains("baton-vmm must not reach FoundationEssentials"))
        #expect(!broken.contains { $0.hasPrefix("baton-keep") })
    }

    @Test(arguments: [(59, 0), (60, 1)])
    func `a long main file is found`(lines: Int, violations: Int) {
        #expect(rules("batond", String(repeating: "run()\n", count: lines)).longMains.count == violations)
        #expect(rules("Supervisor", String(repeating: "run()\n", count: lines)).longMains.isEmpty)
    }

    @Test func `Package.swift is understood`() {
        let supervisor = Self.manifest["Supervisor"]
        #expect(supervisor?.dependencies == ["Control", "Handover", "Checkpoint", "Yams"])
        #expect(Self.manifest["CLinux"]?.dependencies == [])
        #expect(Self.manifest["batond"]?.kind == .program)
        #expect(Self.manifest.closure(of: "baton-vmm").contains("CLinux"))
    }
}
