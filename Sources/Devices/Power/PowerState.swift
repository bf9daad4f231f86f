/// What of the power management registers is carried from worker to worker.
package struct PowerState: Sendable, Equatable {
    /// PWRBTN_STS and PWRBTN_EN.
    static let powerButton: UInt16 = 1 << 8
    /// The enable bits of all fixed events keep what is written, though only the power button comes: timer, global lock, power button,
    /// sleep button, clock.
    static let enableBits: UInt16 = 1 << 0 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10
    /// BM_RLD and SLP_TYP. GBL_RLS and SLP_EN read 0.
    static let controlBits: UInt16 = 1 << 1 | 7 << 10

    /// What the guest has asked for and not got yet.
    package var request: PowerRequest?
    /// PM1 status: no bit but the power button's.
    package var status: UInt16 = 0
    /// PM1 enable.
    package var enable: UInt16 = 0
    /// PM1 control without SCI_EN, which is always set.
    package var control: UInt16 = 0

    package init() {}
}
