/// Addresses of network interfaces, as text.
package enum MACAddress {
    /// The six bytes of `52:54:00:12:34:56`; `nil` for anything else.
    package static func bytes(_ text: String) -> [UInt8]? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let bytes = parts.compactMap { part in part.utf8.count == 2 && part.allSatisfy(\.isHexDigit) ? UInt8(part, radix: 16) : nil }
        return parts.count == 6 && bytes.count == 6 ? bytes : nil
    }

    package static func text(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }

    /// The address of the device at `index` of a machine: always the same one, locally administered, of one interface.
    ///
    /// 46 bits of FNV-1a over name and place: machines of different names get different ones, as far as that goes.
    package static func derived(machine: String, index: Int) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in Array(machine.utf8) + [0, UInt8(truncatingIfNeeded: index)] {
            hash ^= UInt64(byte)
            hash = hash &* 0x100_0000_01B3
        }
        // The upper bits of FNV are the better mixed ones.
        var bytes = (0..<6).map { UInt8(truncatingIfNeeded: hash >> UInt64(16 + 8 * $0)) }
        bytes[0] = bytes[0] & 0xFC | 0x02
        return text(bytes)
    }
}
