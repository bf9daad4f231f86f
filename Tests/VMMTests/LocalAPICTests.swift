import Testing

@testable import VMM

@Suite struct LocalAPICTests {
    /// A page with a timer: enabled in software, dividing by one.
    private func page(mode: LocalAPIC.TimerMode, initial: UInt32, current: UInt32, vector: UInt32 = 0x45, masked: Bool = false) -> LocalAPIC {
        var bytes = [UInt8](repeating: 0, count: LocalAPIC.size)
        func store(_ value: UInt32, _ register: Int) {
            for index in 0..<4 { bytes[register + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
        }
        store(0x1FF, 0xF0)
        store(vector | (masked ? 1 << 16 : 0) | mode.rawValue << 17, 0x320)
        store(initial, 0x380)
        store(current, 0x390)
        store(0xB, 0x3E0)
        return LocalAPIC(bytes)
    }

    private func isRequested(_ vector: Int, _ page: LocalAPIC) -> Bool {
        page.bytes[0x200 + 16 * (vector / 32) + vector % 32 / 8] >> UInt8(vector % 8) & 1 == 1
    }

    @Test func aPeriodThatGoesOnIsShorterByTheElapsedTime() {
        var apic = page(mode: .periodic, initial: 1_000_000, current: 600_000)
        apic.advanceTimer(by: 250_000)
        #expect(apic.timerCurrentCount == 350_000)
        #expect(!isRequested(0x45, apic))
    }

    @Test(arguments: [(600_000, 1_000_000), (600_001, 999_999), (1_500_000, 100_000), (5_600_000, 1_000_000)])
    func aPeriodThatEndedRequestsOneInterruptAndKeepsThePhase(elapsed: Int64, left: UInt32) {
        var apic = page(mode: .periodic, initial: 1_000_000, current: 600_000)
        apic.advanceTimer(by: elapsed)
        #expect(isRequested(0x45, apic))
        #expect(apic.timerCurrentCount == left)
    }

    @Test func aMaskedTimerRequestsNothing() {
        var apic = page(mode: .periodic, initial: 1000, current: 500, masked: true)
        apic.advanceTimer(by: 700)
        #expect(!isRequested(0x45, apic))
        #expect(apic.timerCurrentCount == 800)
    }

    @Test func aOneShotTimerThatHadExpiredDoesNotFireAgain() {
        var apic = page(mode: .oneShot, initial: 1000, current: 0)
        apic.advanceTimer(by: 10)
        #expect(apic.timerInitialCount == 0)
        #expect(!isRequested(0x45, apic))
    }

    @Test func aOneShotTimerThatExpiresMeanwhileFiresAtOnce() {
        var apic = page(mode: .oneShot, initial: 1000, current: 400)
        apic.advanceTimer(by: 5000)
        #expect(apic.timerInitialCount == 1000)
        #expect(apic.timerCurrentCount == 1)
    }

    @Test func aDeadlineIsLeftAlone() {
        let before = page(mode: .deadline, initial: 7, current: 3)
        var apic = before
        apic.advanceTimer(by: 1_000_000)
        #expect(apic == before)
    }

    @Test func aClockThatWentBackMovesNothing() {
        let before = page(mode: .periodic, initial: 1000, current: 400)
        var apic = before
        apic.advanceTimer(by: -50)
        #expect(apic == before)
    }

    @Test func theDivisorCounts() {
        var bytes = page(mode: .periodic, initial: 1000, current: 500).bytes
        bytes[0x3E0] = 0x3  // divide by 16
        var apic = LocalAPIC(bytes)
        apic.advanceTimer(by: 1600)
        #expect(apic.timerCurrentCount == 400)
    }

    @Test func anExpiryJustBeforeTheReadingIsNoticed() {
        #expect(page(mode: .periodic, initial: 1_000_000, current: 990_000).mayHaveExpired(within: 20_000))
        #expect(!page(mode: .periodic, initial: 1_000_000, current: 500_000).mayHaveExpired(within: 20_000))
        #expect(page(mode: .oneShot, initial: 1_000_000, current: 0).mayHaveExpired(within: 20_000))
        #expect(!page(mode: .deadline, initial: 0, current: 0).mayHaveExpired(within: 20_000))
    }

    @Test func noPageWhateverItHoldsTraps() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<100 {
            var apic = LocalAPIC((0..<LocalAPIC.size).map { _ in UInt8.random(in: 0...255, using: &generator) })
            _ = apic.mayHaveExpired(within: .random(in: Int64.min ... .max))
            apic.advanceTimer(by: .random(in: Int64.min ... .max))
        }
    }
}
