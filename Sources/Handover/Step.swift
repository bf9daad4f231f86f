/// The steps of a handover, one list for failpoints, journal, events, metrics and the command line.
package enum Step: String, Sendable, CaseIterable, Comparable {
    case preflight, spawn, hello, lend, map, populate, build, prepared
    case practise, settle, park, save, saved, load, loaded
    case commit, grant, running, fence
    case takeAddresses = "take-addresses"
    case retire, soak

    private var position: Int { Self.allCases.firstIndex(of: self) ?? 0 }

    package static func < (left: Step, right: Step) -> Bool { left.position < right.position }

    /// The guest is stopped from the first of these to the last.
    package static let blackout: ClosedRange<Step> = .park ... .running
}
