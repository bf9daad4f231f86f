package import Wire

/// Constants of the checkpoint format, version 1 (docs/checkpoint-format.md).
package enum CheckpointFormat {
    /// The version of the container: header and section table, not of what sections hold.
    package static let version: UInt16 = 1
    /// Bytes of the fixed header; what ``CheckpointHeader/init(judging:)`` needs.
    package static let headerLength = 96
    /// A longer checkpoint is refused before anything is allocated for it.
    package static let maximumLength = 256 << 20
    /// More sections are refused.
    package static let maximumSections = 16384

    static let magic: [UInt8] = Array("BATONCKP".utf8)
    static let writerLength = 32
    static let sectionHeaderLength = 48
    static let nameLength = 24
    /// Where the header's digest stands: the header's bytes before it are what it covers of the header.
    static let digestOffset = 80
    static let mustUnderstandFlag: UInt32 = 1
}

/// Which section: a name and, where a machine has several of a kind, which one of them.
package struct SectionKey: Sendable, Hashable, CustomStringConvertible {
    /// 1 to 24 bytes of lower-case letters, digits and `-`.
    package let name: String
    /// The vCPU's or device's index; 0 where there is one only.
    package let instance: UInt32

    package init(_ name: String, _ instance: UInt32 = 0) {
        self.name = name
        self.instance = instance
    }

    package var description: String { instance == 0 ? name : "\(name)[\(instance)]" }

    /// Whether `name` may name a section.
    static func isValid(name: some Collection<UInt8>) -> Bool {
        !name.isEmpty && name.count <= CheckpointFormat.nameLength
            && name.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
    }
}

/// What can be judged of a checkpoint without decoding anything.
package struct CheckpointHeader: Sendable, Equatable {
    package let formatVersion: UInt16
    /// Version of the worker that wrote it, at most 32 bytes of UTF-8. For people; nothing depends on it.
    package let writer: String
    package let machine: MachineID
    /// Generation of the worker that wrote it.
    package let generation: UInt64
    /// Bytes from the magic to the last section's end.
    package let totalLength: Int
    package let sectionCount: Int
    /// CRC-32C over the header before it and every section header.
    package let digest: UInt32
}

/// What the header and a section header say of one section.
package struct SectionDescription: Sendable, Equatable {
    package let key: SectionKey
    package let version: UInt16
    /// The lowest version a reader must know to make sense of the content.
    package let minimumReader: UInt16
    /// A reader that does not know the section refuses the checkpoint.
    package let mustUnderstand: Bool
    /// CRC-32C of the content.
    package let checksum: UInt32
    /// Where the section header begins in the checkpoint.
    package let offset: Int
    /// Where the content is in the checkpoint.
    package let content: Range<Int>
}
