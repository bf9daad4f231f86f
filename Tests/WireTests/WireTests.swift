import Testing
import Wire

/// One of everything, in one value.
private struct Sample: Equatable {
    var byte: UInt8 = 0xA5
    var short: UInt16 = 0xBEEF
    var word: UInt32 = 0xDEAD_BEEF
    var long: UInt64 = 0x0123_4567_89AB_CDEF
    var signed: Int64 = -42
    var truth = true
    var text = "blöd"
    var blob: [UInt8] = [1, 2, 3]
    var list: [UInt16] = [4, 5, 6]
    var some: UInt32? = 7
    var none: UInt32?
    var machine = MachineID(low: 1, high: 2)

    init() {}

    init(_ bytes: [UInt8]) throws(WireError) {
        var reader = WireReader(bytes)
        byte = try reader.u8()
        short = try reader.u16()
        word = try reader.u32()
        long = try reader.u64()
        signed = try reader.i64()
        truth = try reader.bool()
        text = try reader.string(limit: 16)
        blob = try reader.blob(limit: 16)
        list = try reader.list(limit: 16) { reader throws(WireError) in try reader.u16() }
        some = try reader.optional { reader throws(WireError) in try reader.u32() }
        none = try reader.optional { reader throws(WireError) in try reader.u32() }
        machine = try reader.machineID()
        try reader.finish()
    }

    var bytes: [UInt8] {
        var writer = WireWriter()
        writer.u8(byte)
        writer.u16(short)
        writer.u32(word)
        writer.u64(long)
        writer.i64(signed)
        writer.bool(truth)
        writer.string(text)
        writer.blob(blob)
        writer.list(list) { $0.u16($1) }
        writer.optional(some) { $0.u32($1) }
        writer.optional(none) { $0.u32($1) }
        writer.machineID(machine)
        return writer.bytes
    }
}

@Suite struct `Wire values` {
    @Test func `every kind of value comes back`() throws {
        #expect(try Sample(Sample().bytes) == Sample())
    }

    @Test func `integers are little-endian`() {
        var writer = WireWriter()
        writer.u16(0x0102)
        writer.u64(0x0102_0304_0506_0708)
        #expect(writer.bytes == [2, 1, 8, 7, 6, 5, 4, 3, 2, 1])
    }

    @Test func `every truncation is refused`() {
        let bytes = Sample().bytes
        for length in 0..<bytes.count {
            #expect(throws: WireError.self, "\(length) bytes") { try Sample(Array(bytes[..<length])) }
        }
    }

    @Test func `a byte too many is refused`() {
        let bytes = Sample().bytes
        #expect(throws: WireError.trailing(offset: bytes.count, count: 1)) { try Sample(bytes + [0]) }
    }

    @Test func `any flipped bit ends in a value or an error`() {
        let bytes = Sample().bytes
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                _ = try? Sample(damaged)
            }
        }
    }
}

@Suite struct `Hostile lengths and counts` {
    private func reader(_ length: UInt32, _ rest: Int) -> WireReader {
        var writer = WireWriter()
        writer.u32(length)
        writer.zeros(rest)
        return WireReader(writer.bytes)
    }

    @Test(arguments: [5, 1 << 20, UInt32.max])
    func `a blob beyond what is there is truncated`(length: UInt32) {
        #expect(throws: WireError.truncated(offset: 4, needed: Int(length), available: 4)) {
            var reader = reader(length, 4)
            _ = try reader.blob(limit: .max)
        }
    }

    @Test func `a blob over its limit is too long although it is there`() {
        #expect(throws: WireError.tooLong(offset: 0, length: 4, limit: 3)) {
            var reader = reader(4, 4)
            _ = try reader.blob(limit: 3)
        }
    }

    @Test(arguments: [9, 1 << 20, UInt32.max])
    func `a list of more elements than bytes is refused before it is read`(count: UInt32) {
        #expect(throws: WireError.tooLong(offset: 0, length: UInt64(count), limit: 8)) {
            var reader = reader(count, 8)
            _ = try reader.list(limit: .max) { reader throws(WireError) in try reader.u8() }
        }
    }

    @Test func `a list over its limit is refused`() {
        #expect(throws: WireError.tooLong(offset: 0, length: 8, limit: 7)) {
            var reader = reader(8, 8)
            _ = try reader.list(limit: 7) { reader throws(WireError) in try reader.u8() }
        }
    }

    @Test func `a negative or overlong number of raw bytes is refused`() {
        for count in [-1, 9, Int.max, Int.min] {
            #expect(throws: WireError.self) {
                var reader = WireReader([UInt8](repeating: 0, count: 8))
                _ = try reader.raw(count)
            }
            #expect(throws: WireError.self) {
                var reader = WireReader([UInt8](repeating: 0, count: 8))
                try reader.skip(count)
            }
        }
    }

    @Test func `text that is not UTF-8 and a truth value of two are refused`() {
        var text = WireReader([2, 0, 0, 0, 0xC3, 0x28])
        #expect(throws: WireError.notUTF8(offset: 0)) { _ = try text.string() }
        var truth = WireReader([2])
        #expect(throws: WireError.invalid(offset: 0, field: "a truth value", value: 2)) { _ = try truth.bool() }
    }

    @Test func `a range outside the buffer reads nothing`() {
        var reader = WireReader([1, 2, 3], range: 2..<10)
        #expect(reader.remaining == 1)
        #expect(throws: WireError.self) { _ = try reader.u16() }
    }
}

@Suite struct `Machine identities` {
    @Test func `the text is the bytes in order and comes back`() {
        let id = MachineID(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908)
        #expect(id.description == "000102030405060708090a0b0c0d0e0f")
        #expect(MachineID(id.description) == id)
        #expect(id.bytes == [UInt8](0..<16))
        #expect(MachineID(bytes: id.bytes) == id)
        #expect(MachineID(bytes: [1, 2]) == nil)
    }

    @Test(arguments: ["", "00", "000102030405060708090A0B0C0D0E0F", "+00102030405060708090a0b0c0d0e0f", String(repeating: "0", count: 33)])
    func `other text is no identity`(text: String) {
        #expect(MachineID(text) == nil)
    }
}
