internal import Control

/// How the upgrade of many machines came out.
struct FleetReport: Encodable {
    /// Version all were to run.
    let version: String
    /// Machines that had nothing to upgrade.
    let skipped: [String]
    var results: [Entry] = []
    /// Waited for their turn, which did not come.
    var notStarted: [String] = []
    /// Go on although nobody watches them any more.
    var leftUnderWay: [String] = []
    var interrupted = false
    var nanoseconds = 0

    struct Entry {
        let machine: String
        let result: Result<HandoverRecord, CommandFailure>

        init(machine: String, _ result: Result<HandoverRecord, CommandFailure>) {
            self.machine = machine
            self.result = result
        }

        var record: HandoverRecord? { try? result.get() }

        var failure: CommandFailure? {
            if case .failure(let failure) = result { failure } else { nil }
        }
    }

    private var upgraded: [HandoverRecord] { results.compactMap(\.record) }

    private var blackout: Distribution {
        var blackout = Distribution()
        for record in upgraded { if let length = record.blackoutNanoseconds { blackout.add(length) } }
        return blackout
    }

    /// Two lines at most for what went well.
    func text(_ style: Style) -> String {
        var parts = ["\(upgraded.count) of \(results.count + notStarted.count + leftUnderWay.count) upgraded to \(version.printable)"]
        let blackout = blackout
        if blackout.count > 0 {
            let figures = [("p50", blackout.percentile(50)), ("p99", blackout.percentile(99)), ("max", blackout.maximum)]
            parts.append("blackout " + figures.map { "\($0) \(Quantity.duration($1))" }.joined(separator: ", "))
        }
        parts.append("in \(Quantity.duration(nanoseconds))")
        let text = style.bold(parts.joined(separator: "   ")) + "\n"
        if skipped.isEmpty { return text }
        return text + style.dim("left out, as they run it already or do not run: \(skipped.joined(separator: ", "))") + "\n"
    }

    /// What is to be said when not every machine was upgraded; `nil`: every one was.
    var failure: FleetFailure? {
        let failures = results.compactMap(\.failure)
        guard !failures.isEmpty || interrupted && !(notStarted.isEmpty && leftUnderWay.isEmpty) else { return nil }
        // As bad as the worst of them; what was merely left out is less than what went wrong.
        let worst = failures.map(\.status).max { Self.severity($0) < Self.severity($1) } ?? .interrupted
        var remedies = failures.first.map { _ in ["look at one of them: baton history NAME --timeline --last"] } ?? []
        if !leftUnderWay.isEmpty { remedies.append("follow those that go on: baton events --follow") }
        if !notStarted.isEmpty { remedies.append("begin again with the rest: baton upgrade --all leaves out those that run the image already") }
        var why: [String] = []
        if !leftUnderWay.isEmpty { why.append("going on without this command: \(leftUnderWay.joined(separator: ", "))") }
        if !notStarted.isEmpty { why.append("not begun: \(notStarted.joined(separator: ", "))") }
        let failed = results.filter { $0.failure != nil }.map(\.machine).joined(separator: ", ")
        let what = failures.isEmpty ? "interrupted before every machine was upgraded" : "not upgraded: \(failed)"
        return FleetFailure(status: worst, what: what, why: why, remedies: remedies)
    }

    private static func severity(_ status: ExitStatus) -> Int {
        let order: [ExitStatus] = [.done, .interrupted, .usage, .notFound, .refused, .aborted, .reverted, .noSupervisor, .failed]
        return order.firstIndex(of: status) ?? order.count
    }

    private enum Key: CodingKey {
        case version, upgraded, failed, notStarted, leftUnderWay, skipped, nanoseconds, blackout
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(version, forKey: .version)
        try container.encode(results.filter { $0.record != nil }.map(\.machine), forKey: .upgraded)
        try container.encode(results.filter { $0.failure != nil }.map(\.machine), forKey: .failed)
        try container.encode(notStarted, forKey: .notStarted)
        try container.encode(leftUnderWay, forKey: .leftUnderWay)
        try container.encode(skipped, forKey: .skipped)
        try container.encode(nanoseconds, forKey: .nanoseconds)
        try container.encode(blackout, forKey: .blackout)
    }
}

/// Why the upgrade of many machines is not done.
struct FleetFailure {
    let status: ExitStatus
    let what: String
    let why: [String]
    let remedies: [String]
}
