internal import Control
internal import Handover
internal import LinuxSystem

/// When each step of one handover began and ended. Recording allocates nothing; telling comes after the blackout.
struct StepTimes {
    private struct Span {
        var begin: Int64 = 0
        var end: Int64 = 0
    }
    private var spans: [Span] = .init(repeating: Span(), count: Handover.Step.allCases.count)
    let began: Int64
    let beganWall: Int64
    /// When the back ends stopped taking requests, and, after an abort, when they took them again. CLOCK_MONOTONIC.
    var holdBegan: Int64?
    var holdEnded: Int64?

    init() {
        began = SystemClock.monotonic()
        beganWall = SystemClock.wall()
    }

    mutating func begin(_ step: Handover.Step, at time: Int64 = SystemClock.monotonic()) { spans[step.index].begin = time }
    mutating func end(_ step: Handover.Step, at time: Int64 = SystemClock.monotonic()) {
        spans[step.index].end = time
        if spans[step.index].begin == 0 { spans[step.index].begin = time }
    }

    func beginning(of step: Handover.Step) -> Int64? { spans[step.index].begin == 0 ? nil : spans[step.index].begin }
    func ending(of step: Handover.Step) -> Int64? { spans[step.index].end == 0 ? nil : spans[step.index].end }

    func duration(_ step: Handover.Step) -> Int64 {
        guard let begin = beginning(of: step), let end = ending(of: step) else { return 0 }
        return max(0, end - begin)
    }

    var records: [HandoverRecord.StepTime] {
        Handover.Step.allCases.compactMap { step in
            beginning(of: step).map { begin in
                HandoverRecord.StepTime(
                    phase: step.rawValue, beginNanoseconds: Int(begin - began), endNanoseconds: ending(of: step).map { Int($0 - began) })
            }
        }
    }

    /// From the order to stop to the first KVM_RUN, as the workers saw it; `nil` when the guest was not stopped and started.
    var blackout: Int64? {
        guard let stopped = beginning(of: .park), let ran = ending(of: .running) else { return nil }
        return ran - stopped
    }

    /// For how long requests of the guest waited: until it ran again, in one worker or the other.
    var ioHold: Int64? {
        guard let holdBegan, let end = ending(of: .running) ?? holdEnded else { return nil }
        return max(0, end - holdBegan)
    }

    /// The blackout split so that the parts add up; what no step accounts for is the time messages and wake-ups take.
    var phases: [HandoverRecord.Phase] {
        guard let blackout else { return [] }
        let parts: [Handover.Step] = [.park, .save, .load, .commit, .running]
        var phases = parts.map { HandoverRecord.Phase(name: $0.rawValue, nanoseconds: Int(duration($0))) }
        let attributed = phases.reduce(0) { $0 + $1.nanoseconds }
        phases.append(.init(name: "messages", nanoseconds: max(0, Int(blackout) - attributed)))
        return phases
    }
}

extension Handover.Step {
    var index: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}
