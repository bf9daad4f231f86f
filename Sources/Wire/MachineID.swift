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

    /// The identity in 16 bytes, or nil for another number of them.
    package init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        func word(_ start: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << UInt64(8 * $1) } }
        self.init(low: word(0), high: word(8))
    }

    /// 16 bytes.
    package var bytes: [UInt8] { (0..<16).map { UInt8(truncatingIfNeeded: ($0 < 8 ? low : high) >> UInt64(8 * ($0 % 8))) } }

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
        guard digits.count == 32,
            digits.allSatisfy({ UInt8(ascii: "0") <= $0 && $0 <= UInt8(ascii: "9") || UInt8(ascii: "a") <= $0 && $0 <= UInt8(ascii: "f") }),
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
