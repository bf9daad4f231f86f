import KVM
import Testing
import Wire

@testable import VMM

@Suite struct ClockStateTests {
    private func state(_ flags: ClockData.Flags, clock: UInt64 = 5_000_000_000, khz: UInt32 = 2_000_000) -> ClockState {
        ClockState(data: ClockData(clock: clock, flags: flags, realtime: 77, hostTSC: 1_000_000), raw: 900, tscKHz: khz)
    }

    @Test func theTSCDecidesWhereKVMReadItWithTheClock() {
        let moment = ClockState.Moment(raw: 123_456, tsc: 1_000_000 + 2_000_000)
        #expect(state([.tscStable, .realtime, .hostTSC]).clock(at: moment) == 5_001_000_000)
    }

    @Test func theRawClockDecidesOtherwise() {
        let moment = ClockState.Moment(raw: 900 + 250, tsc: 99_000_000)
        #expect(state([]).clock(at: moment) == 5_000_000_250)
        #expect(state([.hostTSC], khz: 0).clock(at: moment) == 5_000_000_250)
    }

    @Test func timeDoesNotGoBack() {
        #expect(state([.hostTSC]).clock(at: .init(raw: 0, tsc: 0)) == 5_000_000_000)
        #expect(state([]).clock(at: .init(raw: 0, tsc: 0)) == 5_000_000_000)
    }

    @Test func noValuesTrap() {
        for flags in [ClockData.Flags.hostTSC, []] {
            for khz in [UInt32(0), 1, .max] {
                let extreme = ClockState(data: ClockData(clock: .max, flags: flags, realtime: .max, hostTSC: 0), raw: .min, tscKHz: khz)
                _ = extreme.clock(at: .init(raw: .max, tsc: .max))
            }
        }
    }

    @Test func itIsReadAsItWasWritten() throws {
        let state = state([.realtime, .hostTSC])
        var writer = WireWriter()
        state.encode(to: &writer)
        var reader = WireReader(writer.bytes)
        #expect(try ClockState(from: &reader) == state)
        #expect(reader.remaining == 0)
    }
}
