package import Control
package import Handover
package import LinuxSystem

/// A worker binary that this supervisor may execute: copied into a memfd, sealed, hashed after sealing, kept while it runs or may be
/// reverted to. A file can be rewritten or deleted after it was checked; this cannot.
package struct WorkerImage: Sendable {
    package let description: ImageDescription
    /// The sealed, executable memfd.
    package let file: SharedDescriptor

    package var reference: ImageReference { ImageReference(version: description.version, digest: description.digest) }

    /// The section versions it can write and read, as the handover protocol says them.
    package var sections: [Handover.SectionRange] {
        description.sections.map { section in
            Handover.SectionRange(
                name: section.name, writes: Self.range(section.writes), reads: Self.range(section.reads))
        }
    }

    private static func range(_ range: ImageDescription.VersionRange) -> ClosedRange<UInt16> {
        let low = UInt16(clamping: range.lowest)
        return low...max(low, UInt16(clamping: range.highest))
    }

    /// Whether two names stand for the same bytes.
    package func isSame(as other: WorkerImage) -> Bool { description.digest == other.description.digest }
}
