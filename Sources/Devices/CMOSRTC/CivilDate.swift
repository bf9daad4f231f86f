/// A date and time of day, UTC, Gregorian.
struct CivilDate: Equatable {
    let year: Int
    /// 1 to 12.
    let month: Int
    /// 1 to 31.
    let day: Int
    let hour: Int
    let minute: Int
    let second: Int
    /// 1 to 7, Sunday is 1.
    let weekday: Int

    /// - Parameter seconds: since 1970-01-01 00:00 UTC, not negative.
    init(_ seconds: Int64) {
        let seconds = Int(max(0, seconds))
        let days = seconds / 86400
        second = seconds % 60
        minute = seconds / 60 % 60
        hour = seconds / 3600 % 24
        weekday = (days + 4) % 7 + 1  // 1970-01-01 was a Thursday
        // Years begin in March, so that the leap day is the last day; eras have 400 years.
        let shifted = days + 719_468  // days since 0000-03-01
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }
}
