/// The register page of a local APIC as KVM_GET_LAPIC gives it, and what time does to its timer while nobody runs the vCPU.
///
/// Registers are 32 bits wide, 16 bytes apart (Intel SDM volume 3, 11.4.1). KVM's APIC bus runs at 1 GHz.
package struct LocalAPIC: Sendable, Equatable {
    package enum TimerMode: UInt32, Sendable { case oneShot = 0, periodic = 1, deadline = 2 }

    package static let size = 1024
    private static let spuriousVector = 0xF0
    private static let triggerMode = 0x180
    private static let interruptRequest = 0x200
    private static let timerVector = 0x320
    private static let performanceVector = 0x340
    private static let initialCount = 0x380
    private static let currentCount = 0x390
    private static let divideConfiguration = 0x3E0

    package private(set) var bytes: [UInt8]

    /// `bytes` must be ``size`` long.
    package init(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size, "an APIC page")
        self.bytes = bytes
    }

    private subscript(register: Int) -> UInt32 {
        get { (0..<4).reduce(0) { $0 | UInt32(bytes[register + $1]) << UInt32(8 * $1) } }
        set { for index in 0..<4 { bytes[register + index] = UInt8(truncatingIfNeeded: newValue >> UInt32(8 * index)) } }
    }

    package var timerMode: TimerMode? { TimerMode(rawValue: self[Self.timerVector] >> 17 & 3) }
    package var timerInitialCount: UInt32 { self[Self.initialCount] }
    package var timerCurrentCount: UInt32 { self[Self.currentCount] }

    /// Nanoseconds per count (SDM 11.5.4): 1 to 128.
    private var divisor: Int64 {
        let value = self[Self.divideConfiguration]
        return 1 << Int64((((value & 3) | (value & 8) >> 1) + 1) & 7)
    }

    /// Nanoseconds since the timer last expired, for a periodic one that runs.
    package var sinceLastExpiry: Int64? {
        guard timerMode == .periodic, timerInitialCount > 0 else { return nil }
        return Int64(timerInitialCount - min(timerInitialCount, timerCurrentCount)) * divisor
    }

    /// Whether a one-shot timer has run down.
    package var isExpiredOneShot: Bool { timerMode == .oneShot && timerInitialCount > 0 && timerCurrentCount == 0 }

    /// Whether an expiry in the last `window` nanoseconds may not be in the IRR yet: it came after expired timers were collected.
    package func mayHaveExpired(within window: Int64) -> Bool {
        switch timerMode {
        case .periodic: sinceLastExpiry.map { $0 <= window } ?? false
        case .oneShot: isExpiredOneShot
        case .deadline, nil: false  // a deadline that passed is still in its MSR and fires when restored
        }
    }

    /// Whether its timer counts down, so that it matters when it is read or written. One that has a deadline does not.
    package var isCounting: Bool { timerInitialCount > 0 && timerMode != .deadline }

    /// Whether an interrupt may be on its way at any time that is not in the IRR: of a timer that counts, or of performance counters. What has a deadline
    /// fires again.
    package var mayHideInterrupts: Bool { takesPerformanceInterrupts || isCounting }

    /// As after a reset, as far as the timer is concerned. Its mode as well: KVM clears the count of a page that takes a timer out of deadline mode.
    package mutating func removeTimer() {
        self[Self.timerVector] = 0x10000
        self[Self.initialCount] = 0
        self[Self.currentCount] = 0
    }

    /// Whether overflowing performance counters interrupt: their entry is not masked.
    package var takesPerformanceInterrupts: Bool { self[Self.performanceVector] & 0x10000 == 0 }

    /// Moves the timer on by the time between saving and restoring. KVM starts it from the current count when the page is set.
    ///
    /// Periodic: what is left of the period shrinks; if it ended, the interrupt becomes pending and the next phase goes on. One-shot:
    /// one that had expired before stays expired (KVM would start it anew). Deadline: an absolute time; nothing to do.
    package mutating func advanceTimer(by elapsed: Int64) {
        let elapsed = max(0, elapsed)
        switch timerMode {
        case .periodic where timerInitialCount > 0:
            let period = Int64(timerInitialCount) * divisor
            var left = Int64(timerCurrentCount) * divisor - elapsed
            if left <= 0 {
                requestTimerInterrupt()
                left += (1 + -left / period) * period
            }
            self[Self.currentCount] = UInt32(clamping: max(1, left / divisor))
        case .oneShot where timerInitialCount > 0:
            if timerCurrentCount == 0 {
                self[Self.initialCount] = 0
            } else {
                self[Self.currentCount] = UInt32(clamping: max(1, (Int64(timerCurrentCount) * divisor - elapsed) / divisor))
            }
        default: break
        }
    }

    private mutating func requestTimerInterrupt() {
        let entry = self[Self.timerVector]
        let isEnabled = self[Self.spuriousVector] & 0x100 != 0
        if !isEnabled || entry & 0x10000 != 0 { return }  // software-disabled, or the entry is masked
        let vector = Int(entry & 0xFF)
        if vector < 16 { return }
        self[Self.interruptRequest + 16 * (vector / 32)] |= 1 << UInt32(vector % 32)
        self[Self.triggerMode + 16 * (vector / 32)] &= ~(1 << UInt32(vector % 32))
    }
}
