/// Sizes and durations as machine files write them.
enum Units {
    private static let sizes: [(suffix: String, bytes: Int)] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)]
    private static let durations: [(suffix: String, nanoseconds: Int)] = [
        ("ns", 1), ("us", 1_000), ("µs", 1_000), ("ms", 1_000_000), ("min", 60_000_000_000), ("s", 1_000_000_000), ("h", 3_600_000_000_000),
    ]

    /// Bytes of `8GiB`, `512 MiB`, `1048576`; `nil` for anything else, also for what does not fit.
    static func bytes(_ text: String) -> Int? {
        number(text) ?? scaled(text, sizes.map { ($0.suffix, $0.bytes) })
    }

    /// Nanoseconds of `50ms`, `30s`, `2min`, `0`; `nil` for anything else, also for what does not fit.
    static func nanoseconds(_ text: String) -> Int? {
        text == "0" ? 0 : scaled(text, durations.map { ($0.suffix, $0.nanoseconds) })
    }

    private static func scaled(_ text: String, _ units: [(String, Int)]) -> Int? {
        for (suffix, factor) in units where text.hasSuffix(suffix) {
            guard let count = number(String(text.dropLast(suffix.count)).trimmed) else { continue }
            let (product, overflow) = count.multipliedReportingOverflow(by: factor)
            return overflow ? nil : product
        }
        return nil
    }

    private static func number(_ text: String) -> Int? {
        !text.isEmpty && text.utf8.allSatisfy { UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 } ? Int(text) : nil
    }
}

extension String {
    /// Without blanks at its end.
    fileprivate var trimmed: String {
        var text = self[...]
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
