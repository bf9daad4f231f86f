/// What the commit word of a machine says: who may run it.
///
/// One 64-bit word in shared memory, changed by compare-and-swap only; whoever loses obeys:
///
///     running(g)     → frozen(g)        by the outgoing worker, as it says saved
///     frozen(g)      → committed(g+1)   this is the commit point: by the incoming worker, if the supervisor has told it to take over, or by the supervisor
///     frozen(g)      → running(g)       by the outgoing worker, on order or at its own deadline: this is abort
///     committed(g+1) → running(g+1)     by the incoming worker, before its first KVM_RUN
package struct CommitWord: Sendable, Equatable, Hashable, CustomStringConvertible {
    package enum State: UInt8, Sendable, CaseIterable {
        case running = 1
        case frozen = 2
        case committed = 3
    }

    package let state: State
    /// The generation that runs, is frozen, or may run.
    package let generation: UInt32

    package init(_ state: State, _ generation: UInt32) {
        self.state = state
        self.generation = generation
    }

    /// Bits 0–7 hold the state, bits 8–39 the generation, the rest is zero. 0: no worker yet.
    package init?(rawValue: UInt64) {
        guard rawValue >> 40 == 0, let state = State(rawValue: UInt8(truncatingIfNeeded: rawValue)) else { return nil }
        self.init(state, UInt32(truncatingIfNeeded: rawValue >> 8))
    }

    package var rawValue: UInt64 { UInt64(generation) << 8 | UInt64(state.rawValue) }

    package var description: String { "\(state)(\(generation))" }
}

/// Who changes a commit word.
package enum CommitParty: Sendable, CaseIterable {
    case outgoing, supervisor, incoming
}

extension CommitWord {
    /// The words that `party` may put in place of this one.
    package func successors(by party: CommitParty) -> [CommitWord] {
        switch (state, party) {
        case (.running, .outgoing): [CommitWord(.frozen, generation)]
        case (.frozen, .outgoing): [CommitWord(.running, generation)]
        case (.frozen, .supervisor), (.frozen, .incoming): [CommitWord(.committed, generation &+ 1)]
        case (.committed, .incoming): [CommitWord(.running, generation)]
        // A committed generation that died before running is replaced by another from the same checkpoint.
        case (.committed, .supervisor): [CommitWord(.committed, generation &+ 1)]
        case (.running, .supervisor), (.running, .incoming), (.committed, .outgoing): []
        }
    }
}
