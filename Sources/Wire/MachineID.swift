/// The 128-bit identity of a machine. It is drawn once and outlives every worker.
package struct MachineID: Sendable, Hashable, CustomStringConvertible {
    /// Bytes 0 to 7 as a little-endian number.
    package let low: UInt64
    /// Bytes 8 to 15 as a little-endian number.
    package let high: UInt64

    package init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    /// A random identity.
    package static func random() -> MachineID {
        MachineID(low: .random(in: 0 ... .max), high: .random(in: 0 ... .max))
    }

    /// 32 hexadecimal digits, the bytes in order.
    package var description: String {
        func digits(_ value: UInt64) -> String {
            let text = String(value.byteSwapped, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return digits(low) + digits(high)
    }

    /// The identity that `description` shows, or nil for other text.
    package init?(_ text: String) {
        let digits = Array(text.utf8)
        guard digits.count == 32, digits.allSatisfy({ UInt8(ascii: "0") <= $0 && $0 <= UInt8(ascii: "9") || UInt8(ascii: "a") <= $0 && $0 <= UInt8(ascii: "f") }),
            let first = UInt64(String(decoding: digits[..<16], as: UTF8.self), radix: 16),
            let second = UInt64(String(decoding: digits[16...], as: UTF8.self), radix: 16)
        else { return nil }
        self.init(low: first.byteSwapped, high: second.byteSwapped)
    }
}

extension WireWriter {
    /// 16 bytes.
    package mutating func machineID(_ id: MachineID) {
        u64(id.low)
        u64(id.high)
    }
}

extension WireReader {
    /// 16 bytes.
    package mutating func machineID() throws(WireError) -> MachineID {
        let low = try u64()
        return MachineID(low: low, high: try u64())
    }
}
