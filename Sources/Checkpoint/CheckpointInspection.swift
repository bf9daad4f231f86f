internal import Wire

/// What a person wants to see of a checkpoint, damaged ones included: a plain listing without decoding any section.
package struct CheckpointInspection: Sendable, Equatable {
    /// One section of the listing.
    package struct Section: Sendable, Equatable {
        package let description: SectionDescription
        /// The content adds up to its checksum.
        package let isIntact: Bool
    }

    package let header: CheckpointHeader
    package let sections: [Section]
    /// Header and section headers add up to the digest.
    package let digestMatches: Bool

    /// Lists `bytes`, as long as header and section table can be followed.
    package init(_ bytes: [UInt8]) throws(CheckpointError) {
        let layout = try CheckpointLayout(bytes)
        header = layout.header
        digestMatches = layout.digest == layout.header.digest
        sections = layout.sections.map { section in
            Section(description: section, isIntact: CRC32C.of(bytes.span.extracting(section.content)) == section.checksum)
        }
    }

    /// Nothing is damaged.
    package var isIntact: Bool { digestMatches && sections.allSatisfy(\.isIntact) }
}
