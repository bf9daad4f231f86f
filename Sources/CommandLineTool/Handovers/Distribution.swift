/// Durations, counted by size: what percentiles need, in memory that does not grow with their number.
///
/// Sizes are kept to nine significant bits, so a percentile is off by at most 0.2 %; count, smallest and largest are exact.
struct Distribution: Encodable {
    private(set) var count = 0
    private(set) var minimum = Int.max
    private(set) var maximum = 0
    /// How many were of each size, sizes rounded down to nine significant bits.
    private var sizes: [Int: Int] = [:]

    private static let significantBits = 9

    mutating func add(_ nanoseconds: Int) {
        let value = max(0, nanoseconds)
        count += 1
        minimum = min(minimum, value)
        maximum = max(maximum, value)
        sizes[value & ~(Self.step(of: value) - 1), default: 0] += 1
    }

    /// The smallest recorded duration that at least `percent` per cent of all do not exceed; 0 where there is none.
    func percentile(_ percent: Int) -> Int {
        let rank = max(1, (count * percent + 99) / 100)
        if rank >= count { return maximum }
        var seen = 0
        for (size, number) in sizes.sorted(by: { $0.key < $1.key }) {
            seen += number
            if seen >= rank { return min(max(size + Self.step(of: size) / 2, minimum), maximum) }
        }
        return maximum
    }

    /// How many sizes are told apart; at most 256 for each doubling.
    var sizesKept: Int { sizes.count }

    /// How far apart sizes around `value` are.
    private static func step(of value: Int) -> Int { 1 << max(0, Int.bitWidth - value.leadingZeroBitCount - significantBits) }

    private enum Key: String, CodingKey {
        case count
        case p50 = "p50Nanoseconds"
        case p90 = "p90Nanoseconds"
        case p99 = "p99Nanoseconds"
        case maximum = "maxNanoseconds"
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(count, forKey: .count)
        try container.encode(percentile(50), forKey: .p50)
        try container.encode(percentile(90), forKey: .p90)
        try container.encode(percentile(99), forKey: .p99)
        try container.encode(maximum, forKey: .maximum)
    }
}
