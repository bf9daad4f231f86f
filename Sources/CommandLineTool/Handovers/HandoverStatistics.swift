internal import Control

/// What many handovers had in common. Grows with the number of phases and image pairs, not with that of handovers.
struct HandoverStatistics: Encodable {
    private(set) var machines = 0
    private(set) var handovers = 0
    private(set) var outcomes = Outcomes()
    /// How many of them stopped the guest for longer than their machine allows.
    private(set) var overBudget = 0
    /// When the first and the last of them began, in nanoseconds since 1970.
    private(set) var firstAtNanoseconds: Int?
    private(set) var lastAtNanoseconds: Int?
    private(set) var blackout = Distribution()
    /// Aborted handovers included: their guests waited too.
    private(set) var ioHold = Distribution()
    /// Whole handovers that came as far as a running guest, soak left out.
    private(set) var upgrade = Distribution()
    /// Parts of the blackout, and of the rest of the handover, in the order of their first appearance.
    private(set) var blackoutPhases: [Phase] = []
    private(set) var upgradePhases: [Phase] = []
    private(set) var images: [ImagePair] = []

    struct Outcomes: Encodable {
        var committed = 0
        var aborted = 0
        var reverted = 0
        var failed = 0

        mutating func count(_ outcome: HandoverRecord.Outcome) {
            switch outcome {
            case .committed: committed += 1
            case .aborted: aborted += 1
            case .reverted: reverted += 1
            case .failed: failed += 1
            }
        }
    }

    struct Phase: Encodable {
        let name: String
        var durations = Distribution()
    }

    /// The handovers from one version to another.
    struct ImagePair: Encodable {
        let from: String
        let to: String
        var outcomes = Outcomes()
        var blackout = Distribution()
    }

    /// Takes in one machine's handovers.
    mutating func add(_ records: [HandoverRecord]) {
        if !records.isEmpty { machines += 1 }
        for record in records { add(record) }
    }

    private mutating func add(_ record: HandoverRecord) {
        handovers += 1
        outcomes.count(record.outcome)
        firstAtNanoseconds = min(firstAtNanoseconds ?? .max, record.startedAtNanoseconds)
        lastAtNanoseconds = max(lastAtNanoseconds ?? 0, record.startedAtNanoseconds)
        if let hold = record.ioHoldNanoseconds { ioHold.add(hold) }
        let pair = images.firstIndex { $0.from == record.fromImage.version && $0.to == record.toImage.version } ?? images.endIndex
        if pair == images.endIndex { images.append(ImagePair(from: record.fromImage.version, to: record.toImage.version)) }
        images[pair].outcomes.count(record.outcome)
        guard let dark = record.blackoutNanoseconds else { return }
        blackout.add(dark)
        images[pair].blackout.add(dark)
        upgrade.add(record.totalNanoseconds)
        if let budget = record.budgetNanoseconds, dark > budget { overBudget += 1 }
        let timeline = Timeline(record)
        if let window = timeline.blackout { Self.add(window, to: &blackoutPhases) }
        Self.add(timeline.upgrade, to: &upgradePhases)
    }

    /// Each part once a handover: the sum, where a step came twice.
    private static func add(_ window: Timeline.Window, to phases: inout [Phase]) {
        var sums: [(name: String, nanoseconds: Int)] = []
        for part in window.parts where part.name != Timeline.blackoutName {
            guard let length = part.nanoseconds else { continue }
            if let index = sums.firstIndex(where: { $0.name == part.name }) {
                sums[index].nanoseconds += length
            } else {
                sums.append((part.name, length))
            }
        }
        for (name, nanoseconds) in sums + [("unattributed", window.unattributedNanoseconds)] {
            // Remains last, whatever else turns up.
            let end = phases.last?.name == "unattributed" ? phases.endIndex - 1 : phases.endIndex
            let index = phases.firstIndex { $0.name == name } ?? end
            if index == phases.endIndex || phases[index].name != name { phases.insert(Phase(name: name), at: index) }
            phases[index].durations.add(nanoseconds)
        }
    }
}
