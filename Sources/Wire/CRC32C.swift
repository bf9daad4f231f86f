/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4): finds accidents, not intent.
package struct CRC32C: Sendable {
    private var state: UInt32 = 0xFFFF_FFFF

    package init() {}

    /// The checksum of everything taken in so far.
    package var value: UInt32 { ~state }

    /// The checksum of `bytes`.
    package static func of(_ bytes: Span<UInt8>) -> UInt32 {
        var crc = CRC32C()
        crc.update(bytes)
        return crc.value
    }

    package static func of(_ bytes: [UInt8]) -> UInt32 { of(bytes.span) }

    /// Takes in more bytes, eight at a time (slicing by eight).
    package mutating func update(_ bytes: Span<UInt8>) {
        let table = Self.table.span
        var crc = state
        var index = 0
        let whole = bytes.count & ~7
        while index < whole {
            let low = crc ^ word(bytes, index)
            let high = word(bytes, index &+ 4)
            let first = table[1792 &+ Int(low & 0xFF)] ^ table[1536 &+ Int((low &>> 8) & 0xFF)]
            let second = table[1280 &+ Int((low &>> 16) & 0xFF)] ^ table[1024 &+ Int(low &>> 24)]
            let third = table[768 &+ Int(high & 0xFF)] ^ table[512 &+ Int((high &>> 8) & 0xFF)]
            let fourth = table[256 &+ Int((high &>> 16) & 0xFF)] ^ table[Int(high &>> 24)]
            crc = first ^ second ^ third ^ fourth
            index &+= 8
        }
        while index < bytes.count {
            crc = (crc &>> 8) ^ table[Int((crc ^ UInt32(bytes[index])) & 0xFF)]
            index &+= 1
        }
        state = crc
    }

    private func word(_ bytes: Span<UInt8>, _ index: Int) -> UInt32 {
        UInt32(bytes[index]) | UInt32(bytes[index &+ 1]) &<< 8 | UInt32(bytes[index &+ 2]) &<< 16 | UInt32(bytes[index &+ 3]) &<< 24
    }

    /// Eight tables of 256: entry `256 * k + b` is the effect of byte `b` followed by `k` zero bytes.
    private static let table: [UInt32] = {
        var table = [UInt32](repeating: 0, count: 2048)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc &>> 1) ^ 0x82F6_3B78 : crc &>> 1 }
            table[byte] = crc
        }
        for index in 256..<2048 {
            let shorter = table[index - 256]
            table[index] = (shorter &>> 8) ^ table[Int(shorter & 0xFF)]
        }
        return table
    }()
}
