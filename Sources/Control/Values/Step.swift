/// Progress of a handover: a step begins, ends or fails.
///
/// A step that takes no time of its own may only end; one that takes long may begin again with news of itself.
package struct Step: Codable, Sendable, Equatable {
    package var machine: String
    /// A name of ``Phase``. A string, so that a client takes steps it does not know yet.
    package var phase: String
    package var state: State
    /// How long it took; for `begin`, the time since the handover began. For soak, how much of it is over.
    package var nanoseconds: Int
    /// One line about it: `checkpoint formats agree`, `8 GiB mapped`, `41 KiB`.
    package var detail: String?

    package enum State: String, Codable, Sendable, CaseIterable {
        case begin
        case end
        case failed
    }

    package init(machine: String, phase: Phase, state: State, nanoseconds: Int, detail: String? = nil) {
        self.machine = machine
        self.phase = phase.rawValue
        self.state = state
        self.nanoseconds = nanoseconds
        self.detail = detail
    }
}

/// The steps of a handover, in their order: one list for failpoints, journal, events, metrics and command line.
package enum Phase: String, Codable, Sendable, CaseIterable {
    case preflight, spawn, hello, lend, map, populate, build, prepared
    case practise, settle, park, save, saved, load, loaded
    case commit, grant, running, fence
    case takeAddresses = "take-addresses"
    case retire, soak
}

/// Something that happened, for whoever watches.
package struct Event: Codable, Sendable, Equatable {
    /// Grows by one with every event of this supervisor process.
    package var sequence: Int
    /// Nanoseconds since 1970.
    package var atNanoseconds: Int
    package var machine: String?
    package var generation: Int?
    package var kind: Kind
    /// One line for people.
    package var detail: String?
    /// The step, where `kind` is `step`.
    package var step: Step?
    /// The record, where `kind` is `handover`.
    package var handover: HandoverRecord?

    package enum Kind: String, Codable, Sendable, CaseIterable {
        case started
        case stopped
        case paused
        case resumed
        case crashed
        /// The guest restarted itself, or its crash policy did.
        case reset
        case step
        /// A handover ended, one way or the other.
        case handover
        /// The supervisor took over a machine that an earlier supervisor process had started.
        case adopted
        /// A past worker cannot be stopped for certain.
        case fencePending = "fence_pending"
        case warning
    }

    package init(
        sequence: Int, atNanoseconds: Int, machine: String? = nil, generation: Int? = nil, kind: Kind, detail: String? = nil,
        step: Step? = nil, handover: HandoverRecord? = nil
    ) {
        self.sequence = sequence
        self.atNanoseconds = atNanoseconds
        self.machine = machine
        self.generation = generation
        self.kind = kind
        self.detail = detail
        self.step = step
        self.handover = handover
    }
}
