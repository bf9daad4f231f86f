/// One handover, finished: what the history lists.
package struct HandoverRecord: Codable, Sendable, Equatable {
    package var machine: String
    package var kind: Kind
    package var outcome: Outcome
    /// Why it did not go through, or was reverted.
    package var reason: String?
    package var fromGeneration: Int
    package var toGeneration: Int
    package var fromImage: ImageReference
    package var toImage: ImageReference
    /// When it began, in nanoseconds since 1970.
    package var startedAtNanoseconds: Int
    package var totalNanoseconds: Int
    /// What the guest missed. Absent when it was never stopped.
    package var blackoutNanoseconds: Int?
    package var budgetNanoseconds: Int?
    /// For how long the guest's requests to disks and networks waited: from *settle* until it ran again. Absent when it was not held.
    package var ioHoldNanoseconds: Int?
    /// Parts of the blackout; what they leave over is shown as `unattributed`.
    package var phases: [Phase]
    package var steps: [StepTime]

    package enum Kind: String, Codable, Sendable, CaseIterable {
        case upgrade
        case rollback
        case revert
    }

    package enum Outcome: String, Codable, Sendable, CaseIterable {
        case committed
        /// Undone before commit.
        case aborted
        /// Committed, then given back in a second handover.
        case reverted
        case failed
    }

    /// A part of the blackout.
    package struct Phase: Codable, Sendable, Equatable {
        package var name: String
        package var nanoseconds: Int

        package init(name: String, nanoseconds: Int) {
            self.name = name
            self.nanoseconds = nanoseconds
        }
    }

    /// A step, in nanoseconds since the beginning of the handover.
    package struct StepTime: Codable, Sendable, Equatable {
        package var phase: String
        package var beginNanoseconds: Int
        /// Absent when it did not end.
        package var endNanoseconds: Int?

        package init(phase: String, beginNanoseconds: Int, endNanoseconds: Int? = nil) {
            self.phase = phase
            self.beginNanoseconds = beginNanoseconds
            self.endNanoseconds = endNanoseconds
        }
    }

    package init(
        machine: String, kind: Kind, outcome: Outcome, reason: String? = nil, fromGeneration: Int, toGeneration: Int,
        fromImage: ImageReference, toImage: ImageReference, startedAtNanoseconds: Int, totalNanoseconds: Int,
        blackoutNanoseconds: Int? = nil, budgetNanoseconds: Int? = nil, ioHoldNanoseconds: Int? = nil, phases: [Phase] = [],
        steps: [StepTime] = []
    ) {
        self.machine = machine
        self.kind = kind
        self.outcome = outcome
        self.reason = reason
        self.fromGeneration = fromGeneration
        self.toGeneration = toGeneration
        self.fromImage = fromImage
        self.toImage = toImage
        self.startedAtNanoseconds = startedAtNanoseconds
        self.totalNanoseconds = totalNanoseconds
        self.blackoutNanoseconds = blackoutNanoseconds
        self.budgetNanoseconds = budgetNanoseconds
        self.ioHoldNanoseconds = ioHoldNanoseconds
        self.phases = phases
        self.steps = steps
    }
}
