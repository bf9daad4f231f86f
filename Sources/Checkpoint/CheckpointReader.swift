package import Wire

/// Whose checkpoint is expected.
package struct CheckpointIdentity: Sendable, Equatable {
    package let machine: MachineID
    /// Generation of the worker that wrote it.
    package let generation: UInt64

    package init(machine: MachineID, generation: UInt64) {
        self.machine = machine
        self.generation = generation
    }
}

/// Reads a checkpoint whole or not at all, but for sections that its user has it verify later.
///
/// It takes an array, which nobody else can change, on purpose: the writer still has its mapping of the shared memory, so the bytes
/// are copied first and the copy is verified and decoded. Whatever they are, reading ends in a value or a ``CheckpointError``.
package struct CheckpointReader: Sendable {
    package let header: CheckpointHeader
    /// In the order they were written.
    package let sections: [SectionDescription]
    private let bytes: [UInt8]
    private let index: [SectionKey: Int]
    private let ranges: [SectionRange]
    /// Sections of this name are compared with their checksums when they are decoded.
    private let deferred: String?

    /// Verifies lengths, digest, identity and checksums, and that everything that must be understood is.
    ///
    /// - Parameters:
    ///   - bytes: a private copy of the whole checkpoint.
    ///   - identity: whose it must be; nil to take anyone's.
    ///   - understanding: the sections this reader knows, with the versions it reads.
    ///   - deferred: the name of sections whose contents are compared with their checksums by whoever decodes them, when they do.
    package init(
        _ bytes: [UInt8], expecting identity: CheckpointIdentity?, understanding ranges: [SectionRange], deferring deferred: String? = nil
    ) throws(CheckpointError) {
        let layout = try CheckpointLayout(bytes)
        header = layout.header
        sections = layout.sections
        self.bytes = bytes
        guard layout.digest == header.digest else { throw .digest(said: header.digest, found: layout.digest) }
        if let identity {
            guard header.machine == identity.machine else { throw .machine(expected: identity.machine, found: header.machine) }
            guard header.generation == identity.generation else {
                throw .generation(expected: identity.generation, found: header.generation)
            }
        }
        index = layout.index
        self.ranges = ranges
        self.deferred = deferred
        for section in sections {
            if section.key.name != deferred { try section.verify(bytes) }
            if let reads = ranges.reads(of: section.key.name) {
                _ = try section.effectiveVersion(reads: reads)
            } else if section.mustUnderstand {
                throw .unknown(section.key, offset: section.offset)
            }
        }
    }

    /// Whether a section is there.
    package func contains(_ name: String, instance: UInt32 = 0) -> Bool { index[SectionKey(name, instance)] != nil }

    /// The instances of a section, ascending.
    package func instances(of name: String) -> [UInt32] {
        sections.filter { $0.key.name == name }.map(\.key.instance).sorted()
    }

    /// Decodes a section that must be there.
    ///
    /// `decode` gets a reader bounded to the content, and the version to read it as: the one it was written at, or the highest known
    /// here when a newer writer says that this suffices. Only then may content be left over.
    package func decode<Value>(
        _ name: String, instance: UInt32 = 0, _ decode: (inout WireReader, _ version: UInt16) throws(WireError) -> Value
    ) throws(CheckpointError) -> Value {
        let key = SectionKey(name, instance)
        guard let number = index[key] else { throw .missing(key) }
        let section = sections[number]
        guard let reads = ranges.reads(of: name) else { throw .unknown(key, offset: section.offset) }
        let version = try section.effectiveVersion(reads: reads)
        if name == deferred { try section.verify(bytes) }
        var reader = WireReader(bytes, range: section.content)
        do {
            let value = try decode(&reader, version)
            if version == section.version { try reader.finish() }
            return value
        } catch { throw .content(key, error) }
    }

    /// Decodes a section if it is there.
    package func decodeIfPresent<Value>(
        _ name: String, instance: UInt32 = 0, _ body: (inout WireReader, _ version: UInt16) throws(WireError) -> Value
    ) throws(CheckpointError) -> Value? {
        contains(name, instance: instance) ? try decode(name, instance: instance, body) : nil
    }
}

extension [SectionRange] {
    /// A dozen or two of them: to look at each is faster than to set up anything for looking up.
    fileprivate func reads(of name: String) -> ClosedRange<UInt16>? { first { $0.name == name }?.reads }
}

extension SectionDescription {
    /// Whether the content in `checkpoint` adds up to the checksum.
    fileprivate func verify(_ checkpoint: [UInt8]) throws(CheckpointError) {
        let found = CRC32C.of(checkpoint.span.extracting(content))
        guard found == checksum else { throw .checksum(key, offset: offset, said: checksum, found: found) }
    }

    /// The version at which a reader of `reads` reads this section.
    fileprivate func effectiveVersion(reads: ClosedRange<UInt16>) throws(CheckpointError) -> UInt16 {
        if reads.contains(version) { return version }
        if version > reads.upperBound && minimumReader <= reads.upperBound { return reads.upperBound }
        throw .version(key, offset: offset, found: version, minimumReader: minimumReader, reads: reads)
    }
}
