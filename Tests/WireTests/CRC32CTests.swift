import Testing
import Wire

@Suite struct `CRC-32C` {
    @Test func `the published vectors come out`() {  // RFC 3720 B.4
        #expect(CRC32C.of([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.of([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(CRC32C.of([UInt8](0..<32)) == 0x46DD_794E)
        #expect(CRC32C.of(Array("123456789".utf8)) == 0xE306_9283)
    }

    @Test func `taking bytes in pieces of any length makes no difference`() {
        let bytes = (0..<100).map { UInt8(truncatingIfNeeded: $0 * 37) }
        for cut in 0...bytes.count {
            var crc = CRC32C()
            crc.update(bytes.span.extracting(0..<cut))
            crc.update(bytes.span.extracting(cut..<bytes.count))
            #expect(crc.value == CRC32C.of(bytes))
        }
    }
}
