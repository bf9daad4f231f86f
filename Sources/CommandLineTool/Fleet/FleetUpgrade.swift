internal import Control
internal import LinuxSystem

/// Upgrades many machines to one image, some at a time: one connection for each that is under way, all watched by one thread.
///
/// After the first failure no further one is begun, unless `keepsGoing`; those under way are always followed to their ends. So it is after a first
/// Ctrl-C; a second one leaves at once, and what is under way goes on alone.
final class FleetUpgrade {
    private let session: Session
    private let image: String
    private let parallel: Int
    private let keepsGoing: Bool
    private var waiting: ArraySlice<String>
    private var underWay: [MachineUpgrade] = []
    private var report: FleetReport
    private var progress: FleetProgress
    private let began: Int
    private var isStopping = false

    /// `image`: as the supervisor finds it. `skipped`: machines that need no upgrade.
    init(session: Session, machines: [String], skipped: [String], image: String, version: String, parallel: Int, keepsGoing: Bool) {
        self.session = session
        self.image = image
        self.parallel = parallel
        self.keepsGoing = keepsGoing
        waiting = machines[...]
        began = session.context.clock()
        report = FleetReport(version: version, skipped: skipped)
        let output = session.context.output
        progress = FleetProgress(
            style: session.style, columns: output.isTerminal && !session.global.json ? output.columns : nil, total: machines.count,
            nameWidth: machines.map(\.count).max() ?? 0)
    }

    /// Upgrades all of them, or as many as it should. Throws when not every one was.
    func run() throws(CommandFailure) {
        // Before anything is begun: Ctrl-C must be ours to explain.
        let interrupt = session.context.interrupt()
        while true {
            while !isStopping, underWay.count < parallel, let next = waiting.popFirst() { begin(next) }
            if underWay.isEmpty { break }
            if waitForSome(interrupt), !takeInterrupt(interrupt) { break }
            for machine in underWay { follow(machine) }
            underWay.removeAll { $0.result != nil }
            if !session.global.json { session.context.output.write(progress.redraw(underWay, now: session.context.clock())) }
        }
        report.notStarted = Array(waiting)
        report.leftUnderWay = underWay.map(\.name)
        report.nanoseconds = session.context.clock() - began
        let text = session.global.json ? jsonText(["fleet": report], indented: false) + "\n" : progress.end() + report.text(session.style)
        session.context.output.write(text)
        if let failure = report.failure { throw .fleet(failure) }
    }

    private func begin(_ name: String) {
        do throws(CommandFailure) {
            let machine = MachineUpgrade(name, client: try session.connect(), now: session.context.clock())
            machine.client.send(.upgrade, Parameters.Upgrade(machine: name, image: image), more: true)
            underWay.append(machine)
        } catch {
            finish(name, .failure(error))
        }
    }

    /// Waits until a supervisor or the operator says something; whether it was the operator.
    private func waitForSome(_ interrupt: (any Interrupt)?) -> Bool {
        var poll = Poll()
        for machine in underWay { poll.add(machine.client.number) }
        if let interrupt { poll.add(interrupt.number) }
        _ = try? poll.wait(timeout: progress.isLive ? .milliseconds(100) : nil)
        return interrupt != nil && !poll.result(at: underWay.count).isEmpty
    }

    /// Begins no more; whether to go on waiting for those under way.
    private func takeInterrupt(_ interrupt: (any Interrupt)?) -> Bool {
        interrupt?.take()
        if report.interrupted { return false }
        report.interrupted = true
        isStopping = true
        let names = underWay.map(\.name).joined(separator: ", ")
        session.context.errors.write(
            progress.end() + "baton: no further upgrade is begun; waiting for \(names.printable). Ctrl-C again leaves them going on alone.\n")
        return true
    }

    /// Takes what one of them has to say, without waiting.
    private func follow(_ machine: MachineUpgrade) {
        do throws(CommandFailure) {
            while case .reply(let reply, let continues) = try machine.client.next(Results.Progress.self, timeout: .zero) {
                if session.global.json { session.context.output.write(jsonText(reply, indented: false) + "\n") }
                if let step = reply.step { machine.phase = step.phase }
                if let record = reply.handover { machine.record = record }
                if continues { continue }
                guard let record = machine.record else { throw .connectionLost }
                machine.result = .success(record)
                return finish(machine.name, .success(record))
            }
        } catch {
            machine.result = .failure(error)
            finish(machine.name, .failure(error))
        }
    }

    private func finish(_ name: String, _ result: Result<HandoverRecord, CommandFailure>) {
        report.results.append(.init(machine: name, result))
        if case .failure(let error) = result {
            if !keepsGoing { isStopping = true }
            if session.global.json { session.context.output.write("{\"machine\":\(jsonText(name, indented: false)),\"failure\":\(error.json)}\n") }
        }
        if !session.global.json { session.context.output.write(progress.finished(name, result)) }
    }
}

/// One machine's upgrade under way.
final class MachineUpgrade {
    let name: String
    var client: SupervisorClient
    /// The newest step.
    var phase = "begins"
    var record: HandoverRecord?
    var result: Result<HandoverRecord, CommandFailure>?
    let began: Int

    init(_ name: String, client: consuming SupervisorClient, now: Int) {
        self.name = name
        self.client = client
        began = now
    }
}
