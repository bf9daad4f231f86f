package import Control
package import LinuxSystem
package import Supervisor
package import Synchronization

/// A supervisor with three machines and no process behind them, for tests of everything between it and its clients.
///
/// What a call leads to is decided by names: machines and images say in theirs what goes wrong with them.
package final class StubService: SupervisorService {
    /// Nanoseconds since 1970 at which everything here happens.
    package static let now = 1_790_000_000_000_000_000

    /// Every call fails with it.
    package let failure = Mutex<ControlError?>(nil)
    /// A handover waits here after its preflight while the value is 1.
    package let gate = Futex()
    /// Handovers that began.
    package let startedHandovers = Mutex(0)
    /// Handovers that ran to their end, whoever was watching.
    package let finishedHandovers = Mutex(0)
    package let log = EventLog(capacity: 16, now: { StubService.now })

    package init() {}

    package var info: ServiceInfo { ServiceInfo(version: "0.1.0", url: "https://baton.example/") }

    package func run(_ spec: MachineSpec) throws(ControlError) -> Machine {
        try mayFail()
        if StubData.machines.contains(where: { $0.name == spec.name }) { throw .machineExists(machine: spec.name) }
        if spec.vcpus > 8 { throw .invalidSpec(key: "vcpus", reason: "\(spec.vcpus) vCPUs, and this host has 8 CPUs") }
        if spec.memory.pages == .huge1GiB {
            throw .unavailable(feature: "1GiB pages", reason: "0 free, 8 needed")
        }
        return Machine(
            name: spec.name, state: .running, vcpus: spec.vcpus, memoryBytes: spec.memory.sizeBytes, image: StubData.old, generation: 1,
            uptimeNanoseconds: 0)
    }

    package func list() throws(ControlError) -> [Machine] {
        try mayFail()
        return StubData.machines
    }

    package func show(machine: String) throws(ControlError) -> MachineDetails {
        StubData.details(try find(machine))
    }

    package func upgrade(
        machine: String, image: String, progress: @escaping @Sendable (Step) -> Void
    ) throws(ControlError) -> HandoverRecord {
        let machine = try find(machine)
        if machine.name == "db2" { throw .busy(machine: machine.name, operation: "upgrade") }
        if machine.name == "old1" { throw StubData.refusal }
        if !image.hasPrefix("/usr/lib/baton/images/") {
            throw .imageNotAllowed(path: image, reason: "it is in none of /usr/lib/baton/images")
        }
        defer { finishedHandovers.withLock { $0 += 1 } }
        return try handOver(machine.name, kind: .upgrade, image: image, progress: progress)
    }

    package func rollback(machine: String, progress: @escaping @Sendable (Step) -> Void) throws(ControlError) -> HandoverRecord {
        let machine = try find(machine)
        guard machine.revertableTo != nil else {
            throw .refused(machine: machine.name, reasons: ["it has no previous image"])
        }
        return try handOver(machine.name, kind: .rollback, image: "", progress: progress)
    }

    private func handOver(
        _ machine: String, kind: HandoverRecord.Kind, image: String, progress: (Step) -> Void
    ) throws(ControlError) -> HandoverRecord {
        startedHandovers.withLock { $0 += 1 }
        for step in StubData.steps(machine) {
            if image.hasSuffix("broken-load"), step.phase == "load", step.state == .end {
                let reason = "the incoming worker was killed by SIGSEGV"
                progress(Step(machine: machine, phase: .load, state: .failed, nanoseconds: 2_100_000, detail: reason))
                throw .aborted(machine: machine, step: "load", reason: reason)
            }
            if image.hasSuffix("broken-soak"), step.phase == "soak", step.state == .end {
                let reason = "the worker stopped answering 1.0 s into soak"
                progress(Step(machine: machine, phase: .soak, state: .failed, nanoseconds: 1_000_000_000, detail: reason))
                throw .reverted(machine: machine, reason: reason)
            }
            progress(step)
            while step.phase == "preflight", step.state == .end, gate.value == 1 { gate.wait(while: 1) }
        }
        return StubData.record(machine, kind: kind)
    }

    package func abort(machine: String) throws(ControlError) {
        let machine = try find(machine)
        if machine.name != "db2" { throw .refused(machine: machine.name, reasons: ["there is nothing to abort"]) }
    }

    package func history(machine: String, limit: Int) throws(ControlError) -> [HandoverRecord] {
        Array(StubData.history(try find(machine).name).prefix(limit))
    }

    package func events(after: Int?, machine: String?, waiting: Duration) throws(ControlError) -> EventBatch {
        try mayFail()
        return log.events(after: after, machine: machine, waiting: waiting)
    }

    /// Says hello, then returns every byte, until the client ends or says bye.
    package func openConsole(machine: String) throws(ControlError) -> ConsoleSession {
        _ = try find(machine)
        return { connection, pending in
            try? connection.writeAll(Array("hello\n".utf8) + pending)
            while let ready = try? Poll.one(connection.number, timeout: .seconds(5)), ready,
                let bytes = try? connection.read(upTo: 4096), !bytes.isEmpty
            {
                try? connection.writeAll(bytes)
                if String(decoding: bytes, as: UTF8.self).contains("bye") { return }
            }
        }
    }

    package func pause(machine: String) throws(ControlError) { _ = try find(machine) }
    package func resume(machine: String) throws(ControlError) { _ = try find(machine) }
    package func stop(machine: String, force: Bool) throws(ControlError) { _ = try find(machine) }

    package func describeImage(path: String) throws(ControlError) -> ImageDescription {
        try mayFail()
        guard path.hasPrefix("/usr/lib/baton/images/") else {
            throw .imageNotAllowed(path: path, reason: "it is in none of /usr/lib/baton/images")
        }
        return StubData.image(path)
    }

    package func doctor() throws(ControlError) -> [Check] {
        try mayFail()
        return StubData.checks
    }

    private func mayFail() throws(ControlError) {
        if let failure = failure.withLock({ $0 }) { throw failure }
    }

    private func find(_ name: String) throws(ControlError) -> Machine {
        try mayFail()
        guard let machine = StubData.machines.first(where: { $0.name == name }) else { throw .machineNotFound(machine: name) }
        return machine
    }
}
