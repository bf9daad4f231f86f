package import Wire

/// A section encoded and checksummed apart from the checkpoint, as each vCPU thread does with its own state.
package struct EncodedSection: Sendable, Equatable {
    package let key: SectionKey
    package let version: UInt16
    package let minimumReader: UInt16
    package let mustUnderstand: Bool
    package let content: [UInt8]
    fileprivate let checksum: UInt32

    fileprivate init(_ name: String, _ instance: UInt32, _ version: UInt16, content: [UInt8], checksum: UInt32) {
        key = SectionKey(name, instance)
        self.version = version
        minimumReader = version
        mustUnderstand = true
        self.content = content
        self.checksum = checksum
    }

    package init(
        _ name: String, instance: UInt32 = 0, version: UInt16, minimumReader: UInt16? = nil, mustUnderstand: Bool = true, content: [UInt8]
    ) {
        key = SectionKey(name, instance)
        self.version = version
        self.minimumReader = minimumReader ?? version
        self.mustUnderstand = mustUnderstand
        self.content = content
        checksum = CRC32C.of(content)
    }
}

/// A section that is written in several steps, into memory that is used again, and checksummed as it grows.
package struct SectionDraft: Sendable {
    /// Its content, which only grows between one ``removeAll()`` and the next.
    package var content: WireWriter
    private var checksum = CRC32C()
    private var summed = 0

    /// `capacity` bytes are set aside.
    package init(capacity: Int) { content = WireWriter(capacity: capacity) }

    package mutating func removeAll() {
        content.removeAll()
        checksum = CRC32C()
        summed = 0
    }

    /// Takes what has been written since into the checksum.
    package mutating func sum() {
        var checksum = checksum
        checksum.update(content.bytes.span.extracting(summed..<content.count))
        (self.checksum, summed) = (checksum, content.count)
    }

    /// The section, which shares its memory with the draft: written to before the section is gone, the draft gets memory of its own.
    package mutating func section(_ name: String, instance: UInt32, version: UInt16) -> EncodedSection {
        sum()
        return EncodedSection(name, instance, version, content: content.bytes, checksum: checksum.value)
    }
}

/// Writes a checkpoint into a buffer set aside beforehand.
///
/// Section names and versions are the program's own constants: a wrong one is a defect and traps.
package struct CheckpointWriter: Sendable {
    private var output: WireWriter
    private var keys: Set<SectionKey> = []

    /// `capacity` bytes are set aside: up to there writing does not allocate for content.
    package init(capacity: Int = 64 << 10) {
        output = WireWriter(capacity: capacity)
        keys.reserveCapacity(64)
    }

    /// Begins a checkpoint, forgetting what was written before and keeping the memory.
    ///
    /// - Parameter writer: version of the worker that writes; what is over 32 bytes is cut off.
    package mutating func begin(writer: String, machine: MachineID, generation: UInt64) {
        output.removeAll()
        keys.removeAll(keepingCapacity: true)
        output.raw(CheckpointFormat.magic)
        output.u16(CheckpointFormat.version)
        output.u16(UInt16(CheckpointFormat.headerLength))
        output.u32(0)  // section count
        output.u64(0)  // total length
        output.machineID(machine)
        output.u64(generation)
        padded(cut(writer, to: CheckpointFormat.writerLength), to: CheckpointFormat.writerLength)
        output.zeros(CheckpointFormat.headerLength - output.count)
    }

    /// Writes one section; `content` writes what is in it.
    package mutating func section(
        _ name: String, instance: UInt32 = 0, version: UInt16, minimumReader: UInt16? = nil, mustUnderstand: Bool = true,
        _ content: (inout WireWriter) -> Void
    ) {
        let start = output.count
        header(SectionKey(name, instance), version, minimumReader ?? version, mustUnderstand, checksum: 0, length: 0)
        let contentStart = output.count
        content(&output)
        precondition(output.count >= contentStart, "content only adds")
        output.patch(u32: CRC32C.of(output.bytes.span.extracting(contentStart..<output.count)), at: start + 36)
        output.patch(u64: UInt64(output.count - contentStart), at: start + 40)
    }

    /// Adds a section encoded elsewhere. Its content is copied, not checksummed again.
    package mutating func append(_ section: EncodedSection) {
        header(
            section.key, section.version, section.minimumReader, section.mustUnderstand, checksum: section.checksum,
            length: UInt64(section.content.count))
        output.raw(section.content)
    }

    /// Completes the header and returns the checkpoint. The next one starts with `begin`.
    package mutating func finish() -> [UInt8] {
        precondition(keys.count <= CheckpointFormat.maximumSections && output.count <= CheckpointFormat.maximumLength, "over the format's bounds")
        output.patch(u32: UInt32(keys.count), at: 12)
        output.patch(u64: UInt64(output.count), at: 16)
        var digest = CRC32C()
        digest.update(output.bytes.span.extracting(0..<CheckpointFormat.digestOffset))
        var offset = CheckpointFormat.headerLength
        while offset < output.count {
            let end = offset + CheckpointFormat.sectionHeaderLength
            digest.update(output.bytes.span.extracting(offset..<end))
            offset = end + contentLength(ofSectionAt: offset)
        }
        output.patch(u32: digest.value, at: CheckpointFormat.digestOffset)
        return output.bytes
    }

    private func contentLength(ofSectionAt offset: Int) -> Int {
        (0..<8).reduce(0) { $0 | Int(output.bytes[offset + 40 + $1]) << (8 * $1) }
    }

    private mutating func header(
        _ key: SectionKey, _ version: UInt16, _ minimumReader: UInt16, _ mustUnderstand: Bool, checksum: UInt32, length: UInt64
    ) {
        precondition(output.count >= CheckpointFormat.headerLength, "begin comes first")
        precondition(SectionKey.isValid(name: key.name.utf8), "\(key.name) is not a section name")
        precondition(minimumReader >= 1 && minimumReader <= version, "a reader of the version itself must do")
        precondition(keys.insert(key).inserted, "section \(key) is written twice")
        padded(Array(key.name.utf8), to: CheckpointFormat.nameLength)
        output.u32(key.instance)
        output.u16(version)
        output.u16(minimumReader)
        output.u32(mustUnderstand ? CheckpointFormat.mustUnderstandFlag : 0)
        output.u32(checksum)
        output.u64(length)
    }

    private mutating func padded(_ text: [UInt8], to length: Int) {
        output.raw(text)
        output.zeros(length - text.count)
    }

    /// As much of `text` as fits, ending between characters.
    private func cut(_ text: String, to limit: Int) -> [UInt8] {
        var result: [UInt8] = []
        for character in text where character != "\0" {
            if result.count + character.utf8.count > limit { break }
            result += character.utf8
        }
        return result
    }
}
