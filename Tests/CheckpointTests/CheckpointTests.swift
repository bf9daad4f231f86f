import Checkpoint
import Testing
import Wire

@Suite struct `A checkpoint` {
    private func reader(
        _ bytes: [UInt8], expecting identity: CheckpointIdentity? = nil, understanding ranges: [SectionRange] = Golden.ranges
    ) throws -> CheckpointReader {
        try CheckpointReader(bytes, expecting: identity, understanding: ranges)
    }

    private func written(_ sections: (inout CheckpointWriter) -> Void) -> [UInt8] {
        var writer = CheckpointWriter()
        writer.begin(writer: "0.1.0", machine: Golden.machine, generation: 7)
        sections(&writer)
        return writer.finish()
    }

    @Test func `sections come back by name and instance`() throws {
        let reader = try reader(Golden.write("sections"), expecting: Golden.identity)
        #expect(reader.instances(of: "cpu") == [0, 1])
        #expect(
            try reader.decode("cpu", instance: 1) { reader, version throws(WireError) in [version] + (try reader.raw(4)).map(UInt16.init) } == [
                2, 5, 6, 7, 8,
            ])
        #expect(try reader.decode("serial") { reader, _ throws(WireError) in try reader.string() } == "COM1")
        #expect(reader.contains("clock") && !reader.contains("clock", instance: 1))
    }

    @Test func `a section encoded apart is the same as one written in place`() {
        let apart = written { $0.append(EncodedSection("cpu", version: 1, content: [1, 2, 3])) }
        #expect(apart == written { $0.section("cpu", version: 1) { $0.raw([1, 2, 3] as [UInt8]) } })
    }

    @Test func `a writer begins anew as if it were new`() {
        var writer = CheckpointWriter()
        writer.begin(writer: "other", machine: MachineID(low: 9, high: 9), generation: 1)
        writer.section("cpu", version: 1) { $0.zeros(1000) }
        _ = writer.finish()
        writer.begin(writer: "0.1.0", machine: Golden.machine, generation: 7)
        #expect(writer.finish() == Golden.write("empty"))
    }

    @Test func `another machine's or generation's is refused, naming both`() {
        let other = CheckpointIdentity(machine: MachineID(low: 1, high: 2), generation: 7)
        #expect(throws: CheckpointError.machine(expected: other.machine, found: Golden.machine)) {
            try reader(Golden.write("empty"), expecting: other)
        }
        #expect(throws: CheckpointError.generation(expected: 8, found: 7)) {
            try reader(Golden.write("empty"), expecting: CheckpointIdentity(machine: Golden.machine, generation: 8))
        }
    }

    @Test func `an unknown section that must be understood is refused, another is passed over`() throws {
        let bytes = written { $0.section("virtio-blk", instance: 3, version: 1) { $0.u8(1) } }
        #expect(throws: CheckpointError.unknown(SectionKey("virtio-blk", 3), offset: 96)) { try reader(bytes) }
        let hint = written { $0.section("hint", version: 1, mustUnderstand: false) { $0.u8(1) } }
        #expect(try reader(hint).sections.count == 1)
    }

    @Test(arguments: [(1, 1), (4, 4), (5, 4)] as [(UInt16, UInt16)])
    func `a version outside what is read is refused`(version: UInt16, minimum: UInt16) {
        let bytes = written { $0.section("clock", version: version, minimumReader: minimum) { _ in } }
        #expect(throws: CheckpointError.version(SectionKey("clock"), offset: 96, found: version, minimumReader: minimum, reads: 2...3)) {
            try reader(bytes)
        }
    }

    @Test func `a newer section is read as the newest known version when its writer says that suffices`() throws {
        let value = try reader(Golden.write("newer-sections")).decode("clock") { reader, version throws(WireError) in
            [UInt32(version), try reader.u32()]
        }
        #expect(value == [3, 1])
    }

    @Test func `content left over, content too short and a missing section are refused`() throws {
        let checkpoint = try reader(Golden.write("one-section"))
        #expect(throws: CheckpointError.content(SectionKey("cpu"), .trailing(offset: 148, count: 4))) {
            try checkpoint.decode("cpu") { reader, _ throws(WireError) in try reader.u32() }
        }
        #expect(throws: CheckpointError.content(SectionKey("cpu"), .truncated(offset: 144, needed: 9, available: 8))) {
            try checkpoint.decode("cpu") { reader, _ throws(WireError) in try reader.raw(9) }
        }
        #expect(throws: CheckpointError.missing(SectionKey("clock"))) { try checkpoint.decode("clock") { _, _ throws(WireError) in } }
        #expect(try checkpoint.decodeIfPresent("clock") { _, _ throws(WireError) in 1 } == nil)
    }

    @Test func `damage is named by section and offset`() {
        var bytes = Golden.write("sections")
        bytes[96 + 48 + 4 + 48] ^= 1
        guard case .checksum(SectionKey("cpu", 1), 148, _, _)? = #expect(throws: CheckpointError.self, performing: { try reader(bytes) }) else {
            return #expect(Bool(false), "another error")
        }
    }

    @Test func `damage of a section whose comparison is deferred is found when that section is decoded, and no other`() throws {
        var bytes = Golden.write("sections")
        bytes[96 + 48 + 4 + 48] ^= 1
        let checkpoint = try CheckpointReader(bytes, expecting: nil, understanding: Golden.ranges, deferring: "cpu")
        for instance in checkpoint.instances(of: "cpu") {
            func decode() throws(CheckpointError) {
                try checkpoint.decode("cpu", instance: instance) { reader, _ throws(WireError) in try reader.skip(reader.remaining) }
            }
            if instance != 1 {
                try decode()
            } else {
                guard case .checksum(SectionKey("cpu", 1), 148, _, _)? = #expect(throws: CheckpointError.self, performing: { try decode() }) else {
                    return #expect(Bool(false), "another error")
                }
            }
        }
        #expect(throws: CheckpointError.self) { try CheckpointReader(bytes, expecting: nil, understanding: Golden.ranges, deferring: "clock") }
    }

    @Test func `a long writer version is cut between characters`() throws {
        var writer = CheckpointWriter()
        writer.begin(writer: String(repeating: "ä", count: 15) + "x€y", machine: Golden.machine, generation: 1)
        #expect(try CheckpointHeader(judging: writer.finish()).writer == String(repeating: "ä", count: 15) + "x")
    }
}

@Suite struct `Hostile checkpoints` {
    /// Changes bytes and makes the checksums right again, as somebody who means harm would.
    private func forged(_ name: String, _ change: (inout [UInt8]) -> Void) -> [UInt8] {
        var bytes = Golden.write(name)
        change(&bytes)
        var digest = CRC32C()
        digest.update(bytes.span.extracting(0..<80))
        var offset = 96
        while offset + 48 <= bytes.count {
            digest.update(bytes.span.extracting(offset..<offset + 48))
            let length = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[offset + 40 + $1]) << UInt64(8 * $1) }
            guard length < bytes.count else { break }
            offset += 48 + Int(length)
        }
        for index in 0..<4 { bytes[80 + index] = UInt8(truncatingIfNeeded: digest.value >> UInt32(8 * index)) }
        return bytes
    }

    private func refusal(_ bytes: [UInt8]) -> CheckpointError? {
        do {
            _ = try CheckpointReader(bytes, expecting: nil, understanding: Golden.ranges)
            return nil
        } catch { return error }
    }

    @Test func `an untouched forgery is accepted, so the others are refused for what they forge`() {
        #expect(refusal(forged("sections") { _ in }) == nil)
    }

    @Test(arguments: [1, 2, 5, 16384, 16385, UInt32.max])
    func `more sections than there are, or than allowed`(count: UInt32) {
        let bytes = forged("empty") { bytes in for index in 0..<4 { bytes[12 + index] = UInt8(truncatingIfNeeded: count >> UInt32(8 * index)) } }
        if count > 16384 {
            #expect(refusal(bytes) == .header(.tooLong(offset: 12, length: UInt64(count), limit: 16384)))
        } else {
            #expect(refusal(bytes) == .sectionHeader(index: 0, .truncated(offset: 96, needed: 24, available: 0)))
        }
    }

    @Test func `fewer sections than there are`() {
        #expect(refusal(forged("sections") { $0[12] = 1 }) == .header(.trailing(offset: 148, count: 205)))
    }

    @Test(arguments: [9, 0x0FFF_FFFF, UInt64.max, 1 << 63])
    func `content beyond the end`(length: UInt64) {
        let bytes = forged("one-section") { bytes in
            for index in 0..<8 { bytes[136 + index] = UInt8(truncatingIfNeeded: length >> UInt64(8 * index)) }
        }
        guard case .sectionHeader(index: 0, _) = refusal(bytes) else { return #expect(Bool(false), "another error, or none") }
    }

    @Test func `the same section twice`() {
        #expect(refusal(forged("sections") { $0[148 + 24] = 0 }) == .duplicate(SectionKey("cpu", 0), offset: 148))
    }

    @Test func `names, padding, flags and versions that may not be`() {
        for (offset, value) in [(96, 0x41), (96, 0), (99, 0x2F), (110, 1), (96 + 33, 1), (96 + 32, 3), (96 + 30, 0), (96 + 30, 9)] as [(Int, UInt8)] {
            guard case .sectionHeader(index: 0, _) = refusal(forged("one-section") { $0[offset] = value }) else {
                Issue.record("accepted: byte \(offset) is \(value)")
                continue
            }
        }
    }

    @Test func `reserved bytes, header length and format version`() {
        #expect(refusal(forged("empty") { $0[90] = 1 }) == .header(.invalid(offset: 84, field: "a reserved byte", value: 1)))
        #expect(refusal(forged("empty") { $0[10] = 97 }) == .header(.invalid(offset: 10, field: "the header's length", value: 97)))
        #expect(refusal(forged("empty") { $0[8] = 2 }) == .formatVersion(found: 2))
        #expect(refusal(forged("empty") { $0[0] = 0 }) == .notACheckpoint)
    }

    @Test func `random bytes behind a header end in an error`() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var bytes = Golden.write("sections")
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[.random(in: 8..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = refusal(forged("empty") { $0 = bytes })
        }
    }
}
