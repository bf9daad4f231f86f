internal import Wire

/// Header and section table of a checkpoint, bounds checked, checksums not yet.
struct CheckpointLayout {
    let header: CheckpointHeader
    let sections: [SectionDescription]
    /// Which of them each one is.
    let index: [SectionKey: Int]
    /// CRC-32C over the header before the digest and every section header, as found.
    let digest: UInt32

    init(_ bytes: [UInt8]) throws(CheckpointError) {
        header = try CheckpointHeader(judging: bytes)
        guard bytes.count == header.totalLength else {
            throw .length(said: UInt64(header.totalLength), there: bytes.count)
        }
        var digest = CRC32C()
        digest.update(bytes.span.extracting(0..<CheckpointFormat.digestOffset))
        var sections: [SectionDescription] = []
        sections.reserveCapacity(header.sectionCount)
        var keys: [SectionKey: Int] = [:]
        keys.reserveCapacity(header.sectionCount)
        var reader = WireReader(bytes, range: CheckpointFormat.headerLength..<bytes.count)
        for index in 0..<header.sectionCount {
            let section: SectionDescription
            do { section = try SectionDescription(&reader) } catch { throw .sectionHeader(index: index, error) }
            digest.update(bytes.span.extracting(section.offset..<section.content.lowerBound))
            if keys.updateValue(index, forKey: section.key) != nil { throw .duplicate(section.key, offset: section.offset) }
            sections.append(section)
        }
        do { try reader.finish() } catch { throw .header(error) }
        self.sections = sections
        self.index = keys
        self.digest = digest.value
    }
}

extension CheckpointHeader {
    /// Judges the first ``CheckpointFormat/headerLength`` bytes of a checkpoint, for instance to learn how much to copy.
    package init(judging bytes: [UInt8]) throws(CheckpointError) {
        let magic = CheckpointFormat.magic
        guard bytes.starts(with: magic.prefix(bytes.count)), !bytes.isEmpty else { throw .notACheckpoint }
        var reader = WireReader(bytes)
        do {
            _ = try reader.raw(magic.count)
            formatVersion = try reader.u16()
        } catch { throw .header(error) }
        guard formatVersion == CheckpointFormat.version else { throw .formatVersion(found: formatVersion) }
        do throws(WireError) {
            let lengthOffset = reader.offset
            let length = try reader.u16()
            if length != CheckpointFormat.headerLength {
                throw WireError.invalid(offset: lengthOffset, field: "the header's length", value: UInt64(length))
            }
            sectionCount = try reader.count32(limit: CheckpointFormat.maximumSections)
            totalLength = try reader.count64(limit: CheckpointFormat.maximumLength)
            machine = try reader.machineID()
            generation = try reader.u64()
            writer = try reader.paddedText(CheckpointFormat.writerLength)
            digest = try reader.u32()
            let start = reader.offset
            for byte in try reader.raw(CheckpointFormat.headerLength - reader.offset) where byte != 0 {
                throw WireError.invalid(offset: start, field: "a reserved byte", value: UInt64(byte))
            }
        } catch { throw .header(error) }
    }
}

extension SectionDescription {
    /// Reads a section header and passes over the content.
    init(_ reader: inout WireReader) throws(WireError) {
        offset = reader.offset
        let name = try reader.paddedText(CheckpointFormat.nameLength)
        guard SectionKey.isValid(name: name.utf8) else {
            throw .invalid(offset: offset, field: "a section's name", value: UInt64(name.utf8.first ?? 0))
        }
        key = SectionKey(name, try reader.u32())
        version = try reader.u16()
        let readerOffset = reader.offset
        minimumReader = try reader.u16()
        if minimumReader == 0 || minimumReader > version {
            throw .invalid(offset: readerOffset, field: "the minimum reader of version \(version)", value: UInt64(minimumReader))
        }
        let flagsOffset = reader.offset
        let flags = try reader.u32()
        if flags & ~CheckpointFormat.mustUnderstandFlag != 0 {
            throw .invalid(offset: flagsOffset, field: "the flags", value: UInt64(flags))
        }
        mustUnderstand = flags & CheckpointFormat.mustUnderstandFlag != 0
        checksum = try reader.u32()
        let length = try reader.count64(limit: CheckpointFormat.maximumLength)
        content = reader.offset..<reader.offset + length
        try reader.skip(length)
    }
}

extension WireReader {
    /// A 32-bit number of at most `limit`.
    fileprivate mutating func count32(limit: Int) throws(WireError) -> Int {
        let start = offset
        let value = try u32()
        if value > limit { throw .tooLong(offset: start, length: UInt64(value), limit: limit) }
        return Int(value)
    }

    /// A 64-bit number of at most `limit`.
    fileprivate mutating func count64(limit: Int) throws(WireError) -> Int {
        let start = offset
        let value = try u64()
        if value > limit { throw .tooLong(offset: start, length: value, limit: limit) }
        return Int(value)
    }

    /// A field of `length` bytes: UTF-8, then zeros to its end.
    fileprivate mutating func paddedText(_ length: Int) throws(WireError) -> String {
        let start = offset
        let field = try raw(length)
        let text = field.prefix { $0 != 0 }
        for byte in field.dropFirst(text.count) where byte != 0 {
            throw .invalid(offset: start + text.count, field: "padding", value: UInt64(byte))
        }
        guard let string = String(validating: text, as: UTF8.self) else { throw .notUTF8(offset: start) }
        return string
    }
}
