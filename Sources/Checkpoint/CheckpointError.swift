package import Wire

/// Why a checkpoint is refused. Nothing of a refused checkpoint is used.
package enum CheckpointError: Error, Sendable, Equatable, CustomStringConvertible {
    /// It does not begin with the magic.
    case notACheckpoint
    /// The container is of a version that this reader does not know.
    case formatVersion(found: UInt16)
    /// There are fewer or more bytes than the header says.
    case length(said: UInt64, there: Int)
    /// A field of the header, or its place, is not as it must be.
    case header(WireError)
    /// The header of section number `index` is malformed.
    case sectionHeader(index: Int, WireError)
    /// Two sections have the same name and instance.
    case duplicate(SectionKey, offset: Int)
    /// Header and section headers do not add up to the digest.
    case digest(said: UInt32, found: UInt32)
    /// The section's content does not add up to its checksum.
    case checksum(SectionKey, offset: Int, said: UInt32, found: UInt32)
    /// It is another machine's.
    case machine(expected: MachineID, found: MachineID)
    /// It was written by another generation.
    case generation(expected: UInt64, found: UInt64)
    /// The section must be understood and is not known.
    case unknown(SectionKey, offset: Int)
    /// The section is at a version that cannot be read.
    case version(SectionKey, offset: Int, found: UInt16, minimumReader: UInt16, reads: ClosedRange<UInt16>)
    /// The section is needed and not there.
    case missing(SectionKey)
    /// The section's content cannot be what it says it is.
    case content(SectionKey, WireError)

    package var description: String {
        switch self {
        case .notACheckpoint: "not a checkpoint"
        case .formatVersion(let found): "checkpoint format \(found) is not known here; format \(CheckpointFormat.version) is"
        case .length(let said, let there): "the header says \(said) bytes, \(there) are there"
        case .header(let error): "header: \(error)"
        case .sectionHeader(let index, let error): "header of section number \(index): \(error)"
        case .duplicate(let key, let offset): "section \(key) at offset \(offset) is there twice"
        case .digest(let said, let found): "the digest is \(found), the header says \(said): the header or a section header is damaged"
        case .checksum(let key, let offset, let said, let found):
            "section \(key) at offset \(offset) is damaged: its checksum is \(found), its header says \(said)"
        case .machine(let expected, let found): "it is machine \(found)'s, not \(expected)'s"
        case .generation(let expected, let found): "it was written by generation \(found), not \(expected)"
        case .unknown(let key, let offset): "section \(key) at offset \(offset) must be understood and is not known here"
        case .version(let key, let offset, let found, let minimumReader, let reads):
            "section \(key) at offset \(offset) is version \(found) and needs a reader of at least \(minimumReader); this one reads \(versions(reads))"
        case .missing(let key): "section \(key) is missing"
        case .content(let key, let error): "section \(key): \(error)"
        }
    }
}

/// `3` or `1–3`.
func versions(_ range: ClosedRange<UInt16>) -> String {
    range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound)–\(range.upperBound)"
}
