/// What a machine is doing.
package enum MachineState: String, Codable, Sendable, CaseIterable {
    case starting
    case running
    case paused
    case upgrading
    /// On a new image whose health is being watched.
    case soaking
    /// Back on the previous image after a new one failed.
    case reverted
    case stopped
    case crashed
    /// A past worker cannot be stopped for certain, so no new one may run.
    case fencePending = "fence_pending"
}

/// A worker image, as far as it matters to tell one from another.
package struct ImageReference: Codable, Sendable, Equatable {
    package var version: String
    /// SHA-256 of the file, in hexadecimal.
    package var digest: String

    package init(version: String, digest: String) {
        self.version = version
        self.digest = digest
    }
}

/// A machine, in one row.
package struct Machine: Codable, Sendable, Equatable {
    package var name: String
    package var state: MachineState
    package var vcpus: Int
    package var memoryBytes: Int
    package var image: ImageReference
    package var generation: Int
    /// Since power-on; handovers do not interrupt it.
    package var uptimeNanoseconds: Int
    package var lastHandover: LastHandover?
    /// The image it could go back to.
    package var revertableTo: ImageReference?

    package init(
        name: String, state: MachineState, vcpus: Int, memoryBytes: Int, image: ImageReference, generation: Int, uptimeNanoseconds: Int,
        lastHandover: LastHandover? = nil, revertableTo: ImageReference? = nil
    ) {
        self.name = name
        self.state = state
        self.vcpus = vcpus
        self.memoryBytes = memoryBytes
        self.image = image
        self.generation = generation
        self.uptimeNanoseconds = uptimeNanoseconds
        self.lastHandover = lastHandover
        self.revertableTo = revertableTo
    }
}

/// The newest handover of a machine, in short.
package struct LastHandover: Codable, Sendable, Equatable {
    /// When it ended, in nanoseconds since 1970.
    package var atNanoseconds: Int
    package var outcome: HandoverRecord.Outcome
    package var blackoutNanoseconds: Int?
    /// Why it did not go through.
    package var reason: String?

    package init(atNanoseconds: Int, outcome: HandoverRecord.Outcome, blackoutNanoseconds: Int? = nil, reason: String? = nil) {
        self.atNanoseconds = atNanoseconds
        self.outcome = outcome
        self.blackoutNanoseconds = blackoutNanoseconds
        self.reason = reason
    }
}

/// A machine, with everything worth knowing.
package struct MachineDetails: Codable, Sendable, Equatable {
    package var machine: Machine
    package var spec: MachineSpec
    /// The guest-visible model, fixed at power-on.
    package var model: String
    package var worker: Worker?
    /// Its devices; none when absent.
    package var devices: [Device]?
    /// What is being done to it now.
    package var operation: Operation?
    /// Why it cannot be upgraded or reverted, where that is so.
    package var blockers: [String]

    package init(
        machine: Machine, spec: MachineSpec, model: String, worker: Worker? = nil, devices: [Device]? = nil, operation: Operation? = nil,
        blockers: [String] = []
    ) {
        self.machine = machine
        self.spec = spec
        self.model = model
        self.worker = worker
        self.devices = devices
        self.operation = operation
        self.blockers = blockers
    }

    /// The process that runs the machine.
    package struct Worker: Codable, Sendable, Equatable {
        package var pid: Int
        package var uid: Int

        package init(pid: Int, uid: Int) {
            self.pid = pid
            self.uid = uid
        }
    }

    /// A command under way.
    package struct Operation: Codable, Sendable, Equatable {
        /// `upgrade`, `rollback`, `stop`, …
        package var name: String
        /// The step it is at.
        package var phase: String?
        package var elapsedNanoseconds: Int

        package init(name: String, phase: String? = nil, elapsedNanoseconds: Int) {
            self.name = name
            self.phase = phase
            self.elapsedNanoseconds = elapsedNanoseconds
        }
    }
}
