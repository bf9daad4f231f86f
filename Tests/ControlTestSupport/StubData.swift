package import Control

/// What the stub's machines look like.
package enum StubData {
    package static let old = ImageReference(version: "0.1.0", digest: String(repeating: "1a", count: 32))
    package static let new = ImageReference(version: "0.2.0", digest: String(repeating: "2b", count: 32))

    private static let second = 1_000_000_000
    private static let hour = 3_600 * second
    private static let GiB = 1 << 30

    package static let machines = [
        Machine(
            name: "db2", state: .reverted, vcpus: 8, memoryBytes: 32 * GiB, image: old, generation: 5, uptimeNanoseconds: 2_132 * hour,
            lastHandover: LastHandover(
                atNanoseconds: StubService.now - hour, outcome: .reverted, blackoutNanoseconds: 402_000,
                reason: "0.2.0 failed soak (vCPU 3 did not answer)")),
        Machine(
            name: "old1", state: .paused, vcpus: 1, memoryBytes: 256 << 20, image: ImageReference(version: "0.0.9", digest: "99"),
            generation: 1, uptimeNanoseconds: 42 * second),
        Machine(
            name: "web1", state: .running, vcpus: 4, memoryBytes: 8 * GiB, image: old, generation: 7, uptimeNanoseconds: 986 * hour,
            lastHandover: LastHandover(atNanoseconds: StubService.now - 125 * second, outcome: .committed, blackoutNanoseconds: 380_000),
            revertableTo: new),
    ]

    package static let devices: [DeviceSpec] = [
        .disk(DiskSpec(path: "/srv/guests/web1.raw", serial: "web1-root")), .disk(DiskSpec(path: "/dev/vg0/data", readOnly: true, queues: 1)),
        .net(NetSpec(tap: "tap-web1", queues: 2)),
        .console(
            PortsSpec(ports: [
                .init(name: "org.example.agent", socket: "/run/baton/web1.agent"), .init(name: "log", socket: "/run/baton/web1.log"),
            ])),
        .rng(RandomSpec()), .vfio(VFIOSpec(address: "0000:06:00.0", backend: .iommufd)),
    ]

    package static func details(_ machine: Machine) -> MachineDetails {
        var spec = MachineSpec(
            name: machine.name, vcpus: machine.vcpus, memory: MemorySpec(sizeBytes: machine.memoryBytes, pages: .huge2MiB),
            boot: BootSpec(kernel: "/srv/guests/vmlinuz", initrd: "/srv/guests/initrd.img", cmdline: "console=ttyS0"))
        if machine.name == "web1" {
            spec.devices = devices
            spec.vcpuAffinity = [[0, 1], [0, 1], [2], [3]]
        }
        return MachineDetails(
            machine: machine, spec: spec, model: "baton-1", worker: .init(pid: 4711, uid: 990),
            devices: spec.devices == nil ? nil : spec.settledDevices,
            operation: machine.name == "db2" ? .init(name: "upgrade", phase: "populate", elapsedNanoseconds: 812_000_000) : nil,
            blockers: machine.name == "old1" ? ["paused machines are upgraded once they run"] : [])
    }

    package static let refusal = ControlError.refused(
        machine: "old1",
        reasons: [
            "section virtio-net: 0.2.0 reads versions 4–6, old1's worker (0.0.9) writes 1–3",
            "→ upgrade to 0.1.0 first (reads 2–4, writes 3–4)",
        ])

    private static let durations: [(Phase, Int, String?)] = [
        (.preflight, 12_000_000, "checkpoint formats agree (cpu 3, irqchip 2)"), (.spawn, 3_000_000, nil), (.hello, 1_000_000, nil),
        (.lend, 400_000, nil), (.map, 600_000, nil), (.populate, 690_000_000, "8 GiB mapped, 2.1 M pages populated"),
        (.build, 5_000_000, nil), (.prepared, 0, nil), (.practise, 900_000, nil), (.settle, 2_300_000, "I/O hold (guest running)"),
        (.park, 40_000, nil),
        (.save, 70_000, "41 KiB"),
        (.saved, 10_000, nil), (.load, 90_000, nil), (.loaded, 10_000, nil), (.commit, 5_000, nil),
        (.grant, 20_000, nil), (.running, 80_000, nil), (.fence, 15_000, nil), (.retire, 210_000_000, nil), (.soak, 30 * second, "healthy"),
    ]

    package static func steps(_ machine: String) -> [Step] {
        durations.flatMap { phase, nanoseconds, detail in
            [
                Step(machine: machine, phase: phase, state: .begin, nanoseconds: 0),
                Step(machine: machine, phase: phase, state: .end, nanoseconds: nanoseconds, detail: detail),
            ]
        }
    }

    package static func record(_ machine: String, kind: HandoverRecord.Kind) -> HandoverRecord {
        HandoverRecord(
            machine: machine, kind: kind, outcome: .committed, fromGeneration: 7, toGeneration: 8, fromImage: old, toImage: new,
            startedAtNanoseconds: StubService.now - 31 * second, totalNanoseconds: 725_000_000, blackoutNanoseconds: 380_000,
            budgetNanoseconds: 50_000_000, ioHoldNanoseconds: 2_800_000,
            phases: [
                .init(name: "park", nanoseconds: 40_000), .init(name: "save", nanoseconds: 80_000), .init(name: "load", nanoseconds: 100_000),
                .init(name: "commit", nanoseconds: 40_000), .init(name: "run", nanoseconds: 105_000),
            ],
            steps: stepTimes)
    }

    /// Steps of that record: name, beginning and end in microseconds.
    private static let stepTimes: [HandoverRecord.StepTime] =
        ([
            ("preflight", 10, 12_000), ("spawn", 12_000, 15_000), ("hello", 15_000, 16_000), ("lend", 16_000, 16_400), ("map", 16_400, nil),
            ("prepared", 16_401, 711_000), ("practise", 711_100, 712_000), ("settle", 712_000, 714_300), ("park", 714_420, 714_460),
            ("save", 714_460, 714_540),
            ("saved", 714_565, 714_565), ("load", 714_580, 714_680), ("loaded", 714_690, 714_690), ("commit", 714_690, 714_695),
            ("grant", 714_700, 714_715), ("running", 714_715, 714_785), ("fence", 714_860, 714_875), ("take-addresses", 714_900, 714_950),
            ("retire", 714_960, 724_000),
        ] as [(String, Int, Int?)]).map { .init(phase: $0, beginNanoseconds: $1 * 1_000, endNanoseconds: $2.map { $0 * 1_000 }) }

    package static func history(_ machine: String) -> [HandoverRecord] {
        var aborted = record(machine, kind: .upgrade)
        aborted.outcome = .aborted
        aborted.reason = "load: the incoming worker was killed by SIGSEGV"
        aborted.startedAtNanoseconds -= 3 * hour
        aborted.blackoutNanoseconds = nil
        aborted.ioHoldNanoseconds = 4_600_000
        aborted.phases = []
        aborted.steps = aborted.steps.filter { $0.beginNanoseconds <= 714_565_000 }
        return [record(machine, kind: .upgrade), aborted]
    }

    package static func image(_ path: String) -> ImageDescription {
        ImageDescription(
            path: path, version: path.hasSuffix("0.2.0") ? "0.2.0" : "0.1.0", digest: new.digest, models: ["baton-1"],
            sections: [
                .init(name: "cpu", writes: .init(lowest: 2, highest: 3), reads: .init(lowest: 1, highest: 3)),
                .init(name: "irqchip", writes: .init(lowest: 2, highest: 2), reads: .init(lowest: 1, highest: 2)),
            ],
            features: ["transfer"], needs: ["KVM_CAP_IRQFD", "KVM_CAP_XSAVE2"])
    }

    package static let checks = [
        Check(name: "/dev/kvm", verdict: .ok, detail: "API 12, irqchip, irqfd, XSAVE2"),
        Check(name: "memlock", verdict: .ok, detail: "unlimited"),
        Check(name: "/dev/iommu", verdict: .missing, detail: "kernel built without CONFIG_IOMMUFD; legacy containers will be used"),
        Check(name: "hugepages", verdict: .warning, detail: "0 free 2M pages; machines asking for hugepages will be refused"),
    ]
}
