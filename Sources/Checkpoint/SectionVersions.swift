/// The versions of one section that a worker can write and read.
package struct SectionRange: Sendable, Equatable {
    package let name: String
    package let writes: ClosedRange<UInt16>
    package let reads: ClosedRange<UInt16>

    package init(_ name: String, writes: ClosedRange<UInt16>, reads: ClosedRange<UInt16>) {
        self.name = name
        self.writes = writes
        self.reads = reads
    }
}

/// The version at which each section is written: the highest that both sides know, agreed before anything is written.
package struct SectionVersions: Sendable, Equatable {
    private let versions: [String: UInt16]

    package init(_ versions: [String: UInt16]) { self.versions = versions }

    /// What a worker writes when it writes for itself.
    package init(newestOf sections: [SectionRange]) {
        versions = Dictionary(sections.map { ($0.name, $0.writes.upperBound) }, uniquingKeysWith: max)
    }

    /// The version agreed for a section, nil when it was not part of the agreement.
    package subscript(name: String) -> UInt16? { versions[name] }
}
