internal import CChecksum

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4): finds accidents, not intent.
///
/// By the processor's instruction: tables would have to come into its caches first, in every handover.
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

    /// Takes in more bytes.
    package mutating func update(_ bytes: Span<UInt8>) {
        var crc = state
        var index = 0
        while bytes.count &- index >= 32 {
            let part = bytes.extracting(index..<index &+ 32)  // whose bounds are checked once
            crc = cc_crc32c_u256(crc, word(part, 0), word(part, 8), word(part, 16), word(part, 24))
            index &+= 32
        }
        while bytes.count &- index >= 8 {
            crc = cc_crc32c_u64(crc, word(bytes, index))
            index &+= 8
        }
        while index < bytes.count {
            crc = cc_crc32c_u8(crc, bytes[index])
            index &+= 1
        }
        state = crc
    }

    private func word(_ bytes: Span<UInt8>, _ index: Int) -> UInt64 { UInt64(half(bytes, index)) | UInt64(half(bytes, index &+ 4)) &<< 32 }

    private func half(_ bytes: Span<UInt8>, _ index: Int) -> UInt32 {
        UInt32(bytes[index]) | UInt32(bytes[index &+ 1]) &<< 8 | UInt32(bytes[index &+ 2]) &<< 16 | UInt32(bytes[index &+ 3]) &<< 24
    }
}
