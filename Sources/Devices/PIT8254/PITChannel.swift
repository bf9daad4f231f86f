/// One of the three counters of an 8254 (Intel 8254 data sheet), as a function of time: nothing in it moves, what it shows is computed
/// from the moment it was started.
///
/// Times are nanoseconds on the host's monotonic clock. BCD counting is remembered and reported but counts in binary; a new count
/// takes effect at once, not at the end of the period; loading takes no clock.
struct PITChannel: Sendable, Equatable {
    /// Hz; 14.31818 MHz / 12.
    static let frequency: UInt64 = 1_193_182

    /// Control word bits 5 to 0: access, mode, BCD. Mode 6 and 7 are kept as 2 and 3, which they are.
    var control: UInt8 = 0
    /// The count register; 0 counts 65536.
    var reload: UInt16 = 0
    /// The count has been written since the control word was.
    var isLoaded = false
    /// When counting began; nil while it has not: count not loaded, or waiting for the gate to trigger it.
    var started: Int64?
    /// The level of the gate input.
    var gate = true
    /// Nanoseconds counted when a low gate suspended modes 0 and 4.
    var suspended: Int64?
    /// The low byte of a count of which the high byte is to come.
    var pendingLow: UInt8?
    /// Of a count read in two parts the high byte is next.
    var readsHigh = false
    var latchedCount: UInt16?
    var latchedStatus: UInt8?

    var mode: UInt8 { (control >> 1) & 7 }
    private var access: UInt8 { (control >> 4) & 3 }
    var period: UInt64 { reload == 0 ? 65536 : UInt64(reload) }
    private var waitsForTrigger: Bool { mode == 1 || mode == 5 }
    var isPeriodic: Bool { mode == 2 || mode == 3 }

    // Time.

    /// Clocks in a stretch of time, rounded down.
    static func clocks(in nanoseconds: Int64) -> UInt64 {
        scale(UInt64(max(0, nanoseconds)), by: frequency, over: 1_000_000_000, roundingUp: false)
    }

    /// The shortest stretch of time with that many clocks.
    static func nanoseconds(for clocks: UInt64) -> Int64 {
        Int64(clamping: scale(clocks, by: 1_000_000_000, over: frequency, roundingUp: true))
    }

    private static func scale(_ value: UInt64, by factor: UInt64, over divisor: UInt64, roundingUp: Bool) -> UInt64 {
        let product = value.multipliedFullWidth(by: factor)
        guard product.high < divisor else { return .max }
        let (quotient, remainder) = divisor.dividingFullWidth(product)
        return quotient &+ (roundingUp && remainder > 0 ? 1 : 0)
    }

    /// Clocks counted by `now`.
    private func elapsed(_ now: Int64) -> UInt64 {
        if let suspended { return Self.clocks(in: suspended) }
        guard let started else { return 0 }
        return Self.clocks(in: now &- started)
    }

    private var hasStarted: Bool { started != nil || suspended != nil }

    /// How often OUT has risen since counting began. What is an interrupt on channel 0.
    func edges(at now: Int64) -> UInt64 {
        guard hasStarted else { return 0 }
        let clocks = elapsed(now)
        return isPeriodic ? clocks / period : clocks >= period ? 1 : 0
    }

    /// When OUT will have risen `count` times; nil when it never will.
    func time(ofEdge count: UInt64) -> Int64? {
        guard let started, count > 0, isPeriodic || count == 1 else { return nil }
        let (clocks, overflow) = count.multipliedReportingOverflow(by: period)
        return overflow ? nil : started &+ Self.nanoseconds(for: clocks)
    }

    /// The level of OUT.
    func output(at now: Int64) -> Bool {
        guard hasStarted else { return mode != 0 }
        let clocks = elapsed(now)
        switch mode {
        case 0, 1: return clocks >= period
        case 2: return !gate || clocks % period != period - 1
        case 3: return !gate || clocks % period < (period + 1) / 2
        default: return clocks != period
        }
    }

    private func count(at now: Int64) -> UInt16 {
        guard hasStarted else { return reload }
        let clocks = elapsed(now)
        switch mode {
        case 2: return UInt16(truncatingIfNeeded: period - clocks % period)
        case 3: return UInt16(truncatingIfNeeded: period - (2 * (clocks % period)) % period) & ~1
        default: return UInt16(truncatingIfNeeded: period &- clocks)  // goes on below zero
        }
    }

    // What the guest does.

    /// A control word for this channel that is no latch command.
    mutating func program(_ value: UInt8, at now: Int64) {
        let mode = (value >> 1) & 7
        control = value & 0x31 | (mode > 5 ? mode - 4 : mode) << 1
        isLoaded = false
        started = nil
        suspended = nil
        pendingLow = nil
        readsHigh = false
        latchedCount = nil
        latchedStatus = nil
    }

    /// A byte written to the counter's port. True when it completes a count.
    mutating func writeCount(_ value: UInt8, at now: Int64) -> Bool {
        switch access {
        case 1: reload = UInt16(value)
        case 2: reload = UInt16(value) << 8
        case 3:
            guard let low = pendingLow else {
                pendingLow = value
                return false
            }
            pendingLow = nil
            reload = UInt16(value) << 8 | UInt16(low)
        default: return false
        }
        isLoaded = true
        if waitsForTrigger { return true }  // a running one-shot goes on; the trigger loads the new count
        started = now
        suspended = nil
        if !gate { suspend(at: now) }
        return true
    }

    /// A byte read from the counter's port: latched status first, then latched count, else the count as it is.
    mutating func read(at now: Int64) -> UInt8 {
        if let status = latchedStatus {
            latchedStatus = nil
            return status
        }
        let value = latchedCount ?? count(at: now)
        let high = access == 2 || access == 3 && readsHigh
        if access == 3 { readsHigh.toggle() }
        if access != 3 || high { latchedCount = nil }
        return high ? UInt8(value >> 8) : UInt8(truncatingIfNeeded: value)
    }

    mutating func latchCount(at now: Int64) {
        if latchedCount == nil { latchedCount = count(at: now) }
    }

    mutating func latchStatus(at now: Int64) {
        if latchedStatus == nil { latchedStatus = control | (output(at: now) ? 0x80 : 0) | (isLoaded ? 0 : 0x40) }
    }

    /// Sets the level of the gate input.
    mutating func setGate(_ high: Bool, at now: Int64) {
        defer { gate = high }
        guard high != gate, isLoaded else { return }
        switch mode {
        case 0, 4:
            if !high {
                suspend(at: now)
            } else if let counted = suspended {
                started = now &- counted
                suspended = nil
            }
        default:
            if high { started = now }
        }
    }

    private mutating func suspend(at now: Int64) {
        guard let begun = started else { return }
        suspended = now &- begun
        started = nil
    }
}
