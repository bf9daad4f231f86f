package import Checkpoint

/// The stored state of all devices of model `baton-1`.
package struct PlatformState: Sendable, Equatable {
    package var serial = Serial8250State()
    package var pit = PIT8254State()
    package var power = PowerState()
    package var resetPort = ResetPortState()
    package var rtc = CMOSRTCState()

    package init() {}

    /// The sections of these devices and the versions this program writes and reads.
    package static let sections: [SectionRange] = [
        Serial8250State.section, PIT8254State.section, PowerState.section, ResetPortState.section, CMOSRTCState.section,
    ]

    /// Writes one section for each device, at the versions agreed.
    package func save(to checkpoint: inout CheckpointWriter, versions: SectionVersions) {
        serial.save(to: &checkpoint, versions: versions)
        pit.save(to: &checkpoint, versions: versions)
        power.save(to: &checkpoint, versions: versions)
        resetPort.save(to: &checkpoint, versions: versions)
        rtc.save(to: &checkpoint, versions: versions)
    }

    /// Reads all devices or throws; nothing is half restored.
    package init(from checkpoint: CheckpointReader) throws(CheckpointError) {
        serial = try Serial8250State(from: checkpoint)
        pit = try PIT8254State(from: checkpoint)
        power = try PowerState(from: checkpoint)
        resetPort = try ResetPortState(from: checkpoint)
        rtc = try CMOSRTCState(from: checkpoint)
    }
}
