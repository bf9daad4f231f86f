package import Control

/// One line of a machine's journal: an intent or an outcome, written from the commit word.
package struct JournalRecord: Codable, Sendable, Equatable {
    package enum Kind: String, Codable, Sendable {
        /// The machine was powered on: `spec`, `machineID`, `slot`.
        case poweredOn = "powered_on"
        /// The worker of `worker.generation` was started; it runs no guest yet.
        case spawned
        /// The worker of `worker.generation` runs the machine.
        case worker
        /// A handover from one generation to the next is under way: `worker` is the incoming one's plan.
        case handoverBegan = "handover_began"
        /// `handover` says how it ended.
        case handoverEnded = "handover_ended"
        /// The soak of the handover to `handover.toGeneration` is over, well or not.
        case soakEnded = "soak_ended"
        /// A cold start is under way: `detail` says why.
        case restarting
        case paused
        case resumed
        /// The machine is off: `detail` says why.
        case ended
    }

    package var kind: Kind
    /// Nanoseconds since 1970.
    package var at: Int
    package var spec: MachineSpec?
    /// 32 hexadecimal digits.
    package var machineID: String?
    /// The machine's place in this host's table of worker users.
    package var slot: Int?
    package var worker: WorkerPlan?
    package var handover: HandoverRecord?
    package var detail: String?

    package init(
        _ kind: Kind, at: Int, spec: MachineSpec? = nil, machineID: String? = nil, slot: Int? = nil, worker: WorkerPlan? = nil,
        handover: HandoverRecord? = nil, detail: String? = nil
    ) {
        self.kind = kind
        self.at = at
        self.spec = spec
        self.machineID = machineID
        self.slot = slot
        self.worker = worker
        self.handover = handover
        self.detail = detail
    }

    /// Which image a generation runs.
    package struct WorkerPlan: Codable, Sendable, Equatable {
        package var generation: Int
        package var pid: Int?
        package var image: ImageDescription

        package init(generation: Int, pid: Int?, image: ImageDescription) {
            self.generation = generation
            self.pid = pid
            self.image = image
        }
    }
}
