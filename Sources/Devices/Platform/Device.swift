package import Checkpoint
package import Wire

/// The stored state of a device: a plain value, apart from the live one, and encoded at the version its reader knows.
package protocol DeviceState: Sendable, Equatable {
    /// Name of the section and the versions written and read here.
    static var section: SectionRange { get }
    /// Writes the state as section version `version`.
    func encode(to writer: inout WireWriter, version: UInt16)
    /// Reads section version `version`. Whatever cannot be the state of a device is refused.
    init(from reader: inout WireReader, version: UInt16) throws(WireError)
}

extension DeviceState {
    /// Writes the state as a section at the version agreed for it.
    package func save(to checkpoint: inout CheckpointWriter, versions: SectionVersions, instance: UInt32 = 0) {
        let version = versions[Self.section.name] ?? Self.section.writes.upperBound
        checkpoint.section(Self.section.name, instance: instance, version: version) { encode(to: &$0, version: version) }
    }

    /// Reads the state from its section.
    package init(from checkpoint: CheckpointReader, instance: UInt32 = 0) throws(CheckpointError) {
        self = try checkpoint.decode(Self.section.name, instance: instance) { reader, version throws(WireError) in
            try Self(from: &reader, version: version)
        }
    }
}

/// A device whose state goes from worker to worker.
package protocol Device: AnyObject, Sendable {
    associatedtype State: DeviceState

    /// Stops acting on its own; what the guest does is still answered. Done twice it is done once.
    func quiesce()
    /// Acts on its own again. A device begins quiesced.
    func resume()
    /// The state. Only of a quiesced device of which no vCPU runs is it a whole.
    func state() -> State
    /// Takes over a state, whole. Only while quiesced.
    func restore(_ state: State)
}
