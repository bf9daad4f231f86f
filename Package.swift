// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]
let strictC: [CSetting] = [.treatAllWarnings(as: .error)]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// A library or executable of this package with the project's settings.
func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}
func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}
func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "baton",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // Kernel shims and owned resources.
        .target(name: "CLinux", cSettings: strictC),
        .systemLibrary(name: "Clibcap", pkgConfig: "libcap", providers: [.apt(["libcap-dev"])]),
        module("LinuxSystem", ["CLinux", systemPackage]),
        module("KVM", ["LinuxSystem", "CLinux", systemPackage]),
        module("VFIO", ["LinuxSystem", "CLinux", systemPackage]),
        module("GuestMemory", ["LinuxSystem", "CLinux", systemPackage]),
        module("Privilege", ["LinuxSystem", "Clibcap", "CLinux", systemPackage]),

        // Pure formats and state machines: no I/O.
        .target(name: "CChecksum", cSettings: strictC),
        module("Wire", ["CChecksum"]),
        module("Checkpoint", ["Wire"]),
        module("Handover", ["Wire"]),
        module("Control"),

        // Moving messages with descriptors.
        module("Channel", ["Handover", "Wire", "LinuxSystem", systemPackage]),

        // The worker.
        module("Devices", ["Checkpoint", "Wire", "GuestMemory", "LinuxSystem", systemPackage]),
        module(
            "VMM",
            ["Channel", "Checkpoint", "Wire", "CLinux", "Devices", "GuestMemory", "Handover", "KVM", "LinuxSystem", "VFIO", systemPackage]),

        // The supervisor.
        module("Keeper", ["Channel", "Wire", "LinuxSystem", systemPackage]),
        module(
            "Supervisor",
            [
                "Channel", "Control", "Handover", "Keeper", "LinuxSystem", "VFIO", "Wire", crypto, systemPackage,
            ]),

        module("SupervisorProgram", ["Control", "Keeper", "LinuxSystem", "Privilege", "Supervisor", argumentParser, systemPackage]),

        // The command line.
        module("CommandLineTool", ["Checkpoint", "Control", "LinuxSystem", "Wire", argumentParser, systemPackage, yams]),

        // Programs.
        program("baton", ["CommandLineTool"]),
        program("baton-keep", ["Keeper", "LinuxSystem", "Privilege"]),
        program("batond", ["SupervisorProgram", argumentParser]),
        program("baton-vmm", ["VMM", "Handover", "LinuxSystem"]),

        // A supervisor for tests, held at a named step.
        program("batond-held", ["Handover", "LinuxSystem", "SupervisorProgram", argumentParser]),

        // Worker images for tests: a newer honest version, and one that misbehaves as it is stamped.
        program("baton-vmm-next", ["VMM", "LinuxSystem"]),
        .target(name: "CImageStamp", cSettings: strictC),
        program("baton-vmm-faulty", ["CImageStamp", "GuestMemory", "Handover", "KVM", "LinuxSystem", "VMM"]),

        // Tests.
        tests("ImportRuleTests", []),
        .target(name: "RandomTestSupport", path: "Tests/RandomTestSupport", swiftSettings: strict),
        tests("WireTests", ["Wire"]),
        tests("HandoverTests", ["Handover", "Wire"]),
        tests("ChannelTests", ["Channel", "Handover", "LinuxSystem", "Wire", systemPackage]),
        .target(name: "KeeperTestSupport", dependencies: ["Keeper", "LinuxSystem"], path: "Tests/KeeperTestSupport", swiftSettings: strict),
        tests("KeeperTests", ["Keeper", "KeeperTestSupport", "LinuxSystem"]),
        tests("SupervisorTests", ["Control", "Handover", "Keeper", "LinuxSystem", "Supervisor", systemPackage]),
        tests("KVMTests", ["KVM", "LinuxSystem", systemPackage]),
        tests(
            "VMMTests",
            ["VMM", "Channel", "Checkpoint", "Devices", "GuestMemory", "Handover", "KVM", "LinuxSystem", "RandomTestSupport", "Wire", systemPackage]),
        tests("BootTests", ["VMM", "GuestMemory", "LinuxSystem", "Wire", systemPackage]),
        .target(name: "ConfinementAttempts", dependencies: ["CLinux"], path: "Tests/ConfinementAttempts", cSettings: strictC),
        tests("ConfinementTests", ["ConfinementAttempts", "VMM", "LinuxSystem"]),
        .target(
            name: "ControlTestSupport", dependencies: ["Control", "LinuxSystem", "Supervisor", systemPackage], path: "Tests/ControlTestSupport",
            swiftSettings: strict),
        tests("ControlTests", ["Control", "ControlTestSupport", "LinuxSystem", "RandomTestSupport", "Supervisor", systemPackage]),
        .testTarget(
            name: "CommandLineToolTests",
            dependencies: [
                "CommandLineTool", "baton", "Checkpoint", "Control", "ControlTestSupport", "LinuxSystem", "Supervisor", "Wire", systemPackage,
            ],
            exclude: ["Golden", "Fixtures"], swiftSettings: strict),
        tests("CheckpointTests", ["Checkpoint", "LinuxSystem", "Wire"], exclude: ["Golden"]),
        .target(name: "TapTestSupport", path: "Tests/TapTestSupport", cSettings: strictC),
        tests(
            "DevicesTests", ["Checkpoint", "Devices", "GuestMemory", "LinuxSystem", "RandomTestSupport", "TapTestSupport", "Wire", systemPackage],
            exclude: ["Golden"]),
        .target(
            name: "IOMMUTestSupport", dependencies: ["CLinux"], path: "Tests/IOMMUTestSupport", cSettings: strictC),
        tests(
            "VFIOTests",
            ["Control", "Handover", "IOMMUTestSupport", "Keeper", "KeeperTestSupport", "LinuxSystem", "Supervisor", "VFIO", systemPackage]),
        tests("GuestMemoryTests", ["GuestMemory", "LinuxSystem", systemPackage]),
    ]
)
