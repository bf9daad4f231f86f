package import Handover

/// What an image is: its version, and what its workers speak, read and write.
package struct WorkerImage: Sendable, Equatable {
    package var version: String
    package var protocolVersion: UInt16
    package var models: [String]
    package var sections: [SectionRange]
    /// What its workers are able to do, ``WorkerFeature`` among it.
    package var features = ["transfer", WorkerFeature.takesOver, WorkerFeature.knowsMessages, "pvh", "bzimage", "serial-8250", "pit-8254"]

    /// An image with this version that knows every section as it is today; `changed` ones differ.
    package init(version: String, changed: [SectionRange] = []) {
        self.version = version
        protocolVersion = Envelope.protocolVersion
        models = [MachineModel.name]
        sections = MachineSections.ranges.map { range in changed.first { $0.name == range.name } ?? range }
    }

    /// The range of one section; nothing is written or read that is not in the list.
    package func range(_ name: String) -> SectionRange? { sections.first { $0.name == name } }

    func identity(pid: Int32) -> WorkerIdentity {
        WorkerIdentity(version: version, protocolVersion: protocolVersion, pid: pid, models: models, sections: sections)
    }
}
