internal import Wire

/// One table with the header that all but RSDP and FACS have (ACPI 6.5, section 5.2.6).
struct ACPITable: Sendable {
    /// Checksummed.
    let bytes: [UInt8]

    private static let headerLength = 36

    /// - Parameters:
    ///   - signature: four characters.
    ///   - content: what follows the header.
    init(_ signature: String, revision: UInt8, _ content: [UInt8]) {
        var writer = WireWriter(capacity: Self.headerLength + content.count)
        writer.raw(Array(signature.utf8))
        writer.u32(UInt32(Self.headerLength + content.count))
        writer.u8(revision)
        writer.u8(0)  // the checksum
        writer.raw(Self.manufacturer)
        writer.raw(Array("BATON-1 ".utf8))
        writer.u32(1)  // of this table by this manufacturer
        writer.raw(Array("BATN".utf8))  // who made the bytes
        writer.u32(1)
        writer.raw(content)
        var bytes = writer.bytes
        bytes[9] = Self.checksum(bytes)
        self.bytes = bytes
    }

    static let manufacturer = Array("BATON ".utf8)

    /// What makes the sum of `bytes` 0.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }
}

extension WireWriter {
    /// A Generic Address Structure in I/O space (ACPI 6.5, section 5.2.3.2); all zeros for a register that is not there.
    ///
    /// - Parameter access: 1 for bytes, 2 for words.
    mutating func address(port: UInt16 = 0, bits: UInt8 = 0, access: UInt8 = 0) {
        u8(port == 0 ? 0 : 1)
        u8(bits)
        u8(0)
        u8(access)
        u64(UInt64(port))
    }
}
