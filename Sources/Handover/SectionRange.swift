internal import Wire

/// The versions of one checkpoint section that a worker can write and read.
package struct SectionRange: Sendable, Equatable {
    package let name: String
    package let writes: ClosedRange<UInt16>
    package let reads: ClosedRange<UInt16>

    package init(name: String, writes: ClosedRange<UInt16>, reads: ClosedRange<UInt16>) {
        self.name = name
        self.writes = writes
        self.reads = reads
    }

    init(from reader: inout WireReader) throws(WireError) {
        name = try reader.string(limit: 64)
        writes = try Self.range(&reader)
        reads = try Self.range(&reader)
    }

    func encode(to writer: inout WireWriter) {
        writer.string(name)
        for bound in [writes.lowerBound, writes.upperBound, reads.lowerBound, reads.upperBound] { writer.u16(bound) }
    }

    private static func range(_ reader: inout WireReader) throws(WireError) -> ClosedRange<UInt16> {
        let start = reader.offset
        let low = try reader.u16()
        let high = try reader.u16()
        if low > high { throw .invalid(offset: start, field: "a version range's lower bound", value: UInt64(low)) }
        return low...high
    }
}

/// The version at which one section will be written.
package struct SectionVersion: Sendable, Equatable {
    package let name: String
    package let version: UInt16

    /// Of no section, none of which can have such a name: a blueprint may be of version 4, with where interrupts lead.
    package static let blueprintWithMessages = SectionVersion(name: "(blueprint)", version: 4)

    package init(name: String, version: UInt16) {
        self.name = name
        self.version = version
    }

    init(from reader: inout WireReader) throws(WireError) {
        name = try reader.string(limit: 64)
        version = try reader.u16()
    }

    func encode(to writer: inout WireWriter) {
        writer.string(name)
        writer.u16(version)
    }
}

/// What two workers can agree on.
package struct SectionAgreement: Sendable, Equatable {
    /// The newest version of each section that the outgoing worker writes and the incoming one reads.
    package let versions: [SectionVersion]
    /// For each section without such a version a sentence, then what would help after an arrow. Empty: they agree.
    package let refusals: [String]

    /// The writer writes for the reader: every section of `outgoing` must have a version that `incoming` reads.
    package init(outgoing: [SectionRange], incoming: [SectionRange], outgoingVersion: String, incomingVersion: String) {
        var versions: [SectionVersion] = []
        var refusals: [String] = []
        for section in outgoing {
            guard let other = incoming.first(where: { $0.name == section.name }) else {
                refusals.append(
                    "section \(section.name): \(incomingVersion) does not know it, \(outgoingVersion) writes \(Self.text(section.writes))")
                refusals.append("→ choose an image that reads \(section.name)")
                continue
            }
            let newest = min(section.writes.upperBound, other.reads.upperBound)
            if newest >= max(section.writes.lowerBound, other.reads.lowerBound) {
                versions.append(SectionVersion(name: section.name, version: newest))
            } else {
                refusals.append(
                    "section \(section.name): \(incomingVersion) reads \(Self.text(other.reads)), "
                        + "\(outgoingVersion) writes \(Self.text(section.writes))")
                refusals.append(
                    "→ go first to an image that reads one of \(Self.numbers(section.writes)) and writes one of \(Self.numbers(other.reads))")
            }
        }
        self.versions = versions
        self.refusals = refusals
    }

    private static func text(_ range: ClosedRange<UInt16>) -> String { (range.count == 1 ? "version " : "versions ") + numbers(range) }

    private static func numbers(_ range: ClosedRange<UInt16>) -> String {
        range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound)–\(range.upperBound)"
    }
}
