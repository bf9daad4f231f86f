internal import Control

/// Machines, as the command line shows them.
struct MachineText {
    let style: Style
    /// Nanoseconds since 1970.
    let now: Int

    func list(_ machines: [Machine]) -> String {
        if machines.isEmpty { return "No machines. Start one with: baton run FILE\n" }
        var table = Table([
            .init("NAME"), .init("STATE"), .init("VCPUS", .right), .init("MEMORY", .right), .init("IMAGE"), .init("GEN", .right),
            .init("UPTIME", .right), .init("LAST HANDOVER"),
        ])
        for machine in machines {
            table.add([
                .init(machine.name, style.bold), state(machine.state), "\(machine.vcpus)", "\(Quantity.bytes(machine.memoryBytes))",
                "\(machine.image.version)", "\(machine.generation)", "\(Quantity.uptime(machine.uptimeNanoseconds))",
                "\(machine.lastHandover.map(lastHandover) ?? "–")",
            ])
        }
        return table.render(style)
    }

    func state(_ state: MachineState) -> Table.Cell {
        let name = state.rawValue.replacing("_", with: "-")
        return switch state {
        case .running: .init(name, style.green)
        case .starting, .upgrading, .soaking: .init(name, style.cyan)
        case .paused, .reverted: .init(name, style.yellow)
        case .crashed, .fencePending: .init(name, style.red)
        case .stopped: .init(name, style.dim)
        }
    }

    /// `2 min ago, 0.38 ms`, or `1 h ago: reverted, the probe timed out`.
    func lastHandover(_ handover: LastHandover) -> String {
        let when = Quantity.ago(now - handover.atNanoseconds)
        if handover.outcome == .committed {
            return when + (handover.blackoutNanoseconds.map { ", \(Quantity.duration($0))" } ?? "")
        }
        return "\(when): \(handover.outcome.rawValue)" + (handover.reason.map { ", \($0)" } ?? "")
    }

    func details(_ details: MachineDetails) -> String {
        let machine = details.machine
        let spec = details.spec
        var table = Table([.init(""), .init("")])
        func add(_ key: String, _ value: String?) {
            if let value { table.add([.init("  \(key)", style.dim), .init(value)]) }
        }
        add("model", details.model)
        add("vcpus", "\(machine.vcpus)")
        add("memory", memory(spec.memory))
        add("kernel", spec.boot.kernel)
        add("initrd", spec.boot.initrd)
        add("cmdline", spec.boot.cmdline)
        add("console", spec.console?.socket)
        for (index, device) in (details.devices ?? []).enumerated() { add(index == 0 ? "devices" : "", deviceLine(device)) }
        add("image", image(machine.image))
        add("generation", "\(machine.generation)")
        add("worker", details.worker.map { "pid \($0.pid), uid \($0.uid)" })
        add("uptime", Quantity.uptime(machine.uptimeNanoseconds))
        add("doing", details.operation.map(operation))
        add("last", machine.lastHandover.map(lastHandover))
        add("revert to", machine.revertableTo.map(image) ?? "nothing")
        add("affinity", spec.vcpuAffinity.map(affinity))
        add("upgrade", upgrade(spec.upgrade, holdsIO: details.devices?.isEmpty == false))
        add("on crash", spec.onCrash.rawValue)
        for blocker in details.blockers { add("blocker", blocker) }
        let state = self.state(machine.state)
        return "\(style.bold(machine.name.printable))  \(state.colour(state.text))\n" + table.render(style)
    }

    func started(_ machine: Machine) -> String {
        "\(style.bold(machine.name.printable)) \(machine.state.rawValue): \(machine.vcpus) vCPU\(machine.vcpus == 1 ? "" : "s"), "
            + "\(Quantity.bytes(machine.memoryBytes)), image \(machine.image.version.printable), generation \(machine.generation)\n"
    }

    /// `00:01.0  disk  /srv/web1.raw, read-only, serial web1-root, 4 queues`.
    private func deviceLine(_ device: Device) -> String {
        let parts: [String?]
        switch device.spec {
        case .disk(let disk):
            parts = [
                disk.path, disk.readOnly ? "read-only" : nil, disk.serial.map { "serial \($0)" }, disk.queues.map { "\(Self.count($0, "queue"))" },
            ]
        case .net(let net):
            parts = [net.tap, net.mac, net.queues.map { "\(Self.count($0, "queue pair"))" }, net.mtu.map { "MTU \($0)" }]
        case .console(let console): parts = console.ports.map { "\($0.name) at \($0.socket)" }
        case .rng: parts = []
        case .vfio(let device): parts = [device.address, device.backend.rawValue]
        }
        let kind = device.spec.kind.rawValue
        let text = parts.compactMap(\.self).joined(separator: ", ")
        return device.address + "  " + (text.isEmpty ? kind : kind + String(repeating: " ", count: max(0, 7 - kind.count)) + "  " + text)
    }

    private static func count(_ number: Int, _ what: String) -> String { "\(number) \(what)\(number == 1 ? "" : "s")" }

    private func memory(_ memory: MemorySpec) -> String {
        "\(Quantity.bytes(memory.sizeBytes)) in \(memory.pages.rawValue) pages" + (memory.prefault ? ", prefaulted" : "")
    }

    private func image(_ image: ImageReference) -> String { "\(image.version) (sha256 \(image.digest.prefix(12)))" }

    private func operation(_ operation: MachineDetails.Operation) -> String {
        "\(operation.name)\(operation.phase.map { ", at \($0)" } ?? ""), for \(Quantity.duration(operation.elapsedNanoseconds))"
    }

    private func affinity(_ lists: [[Int]]) -> String {
        lists.map { $0.map(String.init).joined(separator: ",") }.joined(separator: " ")
    }

    private func upgrade(_ policy: UpgradePolicy, holdsIO: Bool) -> String {
        let soak = Quantity.duration(policy.soak.durationMilliseconds * 1_000_000)
        let hold = holdsIO ? "I/O hold at most \(Quantity.duration(policy.ioHoldBudget)), " : ""
        return "blackout at most \(Quantity.duration(policy.blackoutBudgetNanoseconds)), \(hold)soak \(soak), then "
            + (policy.soak.onFailure == .revert ? "revert" : "keep") + " if unhealthy" + (policy.onlyUpgradable ? ", only upgradable" : "")
    }
}
