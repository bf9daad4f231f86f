/// Numbers as people read them. All of them pure.
enum Quantity {
    /// `812 ns`, `8 µs`, `0.38 ms`, `12 ms`, `1.2 s`, `18 s`, `2 min 05 s`, `3 h 10 min`.
    static func duration(_ nanoseconds: Int) -> String {
        switch nanoseconds {
        case ..<1_000: "\(max(0, nanoseconds)) ns"
        case ..<10_000: "\(nanoseconds / 1_000) µs"
        case ..<10_000_000: "\(hundredths(nanoseconds, of: 1_000_000)) ms"
        case ..<1_000_000_000: "\((nanoseconds + 500_000) / 1_000_000) ms"
        case ..<10_000_000_000: "\(tenths(nanoseconds, of: 1_000_000_000)) s"
        case ..<60_000_000_000: "\(nanoseconds / 1_000_000_000) s"
        case ..<3_600_000_000_000: "\(nanoseconds / 60_000_000_000) min \(two(nanoseconds / 1_000_000_000 % 60)) s"
        default: "\(nanoseconds / 3_600_000_000_000) h \(two(nanoseconds / 60_000_000_000 % 60)) min"
        }
    }

    /// Milliseconds whatever the size, for columns that are compared: `0.38 ms`, `1204 ms`.
    static func milliseconds(_ nanoseconds: Int) -> String {
        nanoseconds < 100_000_000
            ? "\(hundredths(nanoseconds, of: 1_000_000)) ms" : "\((nanoseconds + 500_000) / 1_000_000) ms"
    }

    /// Microseconds with one decimal and without unit, for columns: `41.3`, `24102.0`.
    static func microseconds(_ nanoseconds: Int) -> String { tenths(nanoseconds, of: 1_000) }

    /// Whole microseconds up to 10 ms, as ``duration(_:)`` above that: for columns in which microseconds tell.
    static func fine(_ nanoseconds: Int) -> String {
        nanoseconds < 10_000_000 ? "\((max(0, nanoseconds) + 500) / 1_000) µs" : duration(nanoseconds)
    }

    /// A share of one: `42.1 %`.
    static func percent(_ share: Double) -> String { "\(tenths(Int((share * 1_000_000).rounded()), of: 10_000)) %" }

    /// `41d 02h`, `3h 05m`, `4m 10s`, `12s`.
    static func uptime(_ nanoseconds: Int) -> String {
        let seconds = max(0, nanoseconds) / 1_000_000_000
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60)
        if days > 0 { return "\(days)d \(two(hours))h" }
        if hours > 0 { return "\(hours)h \(two(minutes))m" }
        if minutes > 0 { return "\(minutes)m \(two(seconds % 60))s" }
        return "\(seconds)s"
    }

    /// `just now`, `40 s ago`, `2 min ago`, `1 h ago`, `9 d ago`.
    static func ago(_ nanoseconds: Int) -> String {
        let seconds = nanoseconds / 1_000_000_000
        return switch seconds {
        case ..<5: "just now"
        case ..<60: "\(seconds) s ago"
        case ..<3_600: "\(seconds / 60) min ago"
        case ..<86_400: "\(seconds / 3_600) h ago"
        default: "\(seconds / 86_400) d ago"
        }
    }

    /// `8 GiB`, `1.5 GiB`, `41 KiB`, `512 B`.
    static func bytes(_ count: Int) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB"]
        guard count >= 1024 else { return "\(count) B" }
        var size = 1024
        var index = 0
        while index + 1 < units.count, count / size >= 1024 {
            size *= 1024
            index += 1
        }
        let number = count.isMultiple(of: size) || count / size >= 100 ? "\(count / size)" : tenths(count, of: size)
        return "\(number) \(units[index])"
    }

    /// A point in time: `2026-11-21 00:19:21.123Z`.
    static func time(_ nanoseconds: Int) -> String {
        let milliseconds = nanoseconds / 1_000_000
        let day = milliseconds / 86_400_000
        let rest = milliseconds % 86_400_000
        let fraction = String(1000 + rest % 1000).dropFirst()
        return "\(date(day)) \(two(rest / 3_600_000)):\(two(rest / 60_000 % 60)):\(two(rest / 1_000 % 60)).\(fraction)Z"
    }

    /// Days since 1970 as a date of the proleptic Gregorian calendar: a year that begins in March makes leap days come last.
    private static func date(_ day: Int) -> String {
        let shifted = day + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let march = (5 * dayOfYear + 2) / 153
        let month = march < 10 ? march + 3 : march - 9
        let year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        return "\(year)-\(two(month))-\(two(dayOfYear - (153 * march + 2) / 5 + 1))"
    }

    private static func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

    private static func tenths(_ count: Int, of unit: Int) -> String {
        let tenths = (count + unit / 20) / (unit / 10)
        return "\(tenths / 10).\(tenths % 10)"
    }

    private static func hundredths(_ count: Int, of unit: Int) -> String {
        let hundredths = (count + unit / 200) / (unit / 100)
        if hundredths >= 995 { return "\((hundredths + 50) / 100)" }
        return hundredths >= 100 ? "\((hundredths + 5) / 100).\((hundredths + 5) / 10 % 10)" : "0.\(two(hundredths))"
    }
}
