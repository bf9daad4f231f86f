import Checkpoint
import Devices
import Testing
import Wire

/// A state as it comes out of a checkpoint at `version`.
func roundTrip<S: DeviceState>(_ state: S, version: UInt16) throws -> S {
    var writer = WireWriter()
    state.encode(to: &writer, version: version)
    var reader = WireReader(writer.bytes)
    return try S(from: &reader, version: version)
}

private let second: Int64 = 1_000_000_000
private let frequency = 1_193_182

@Suite final class `An interval timer` {
    private let interrupts = RecordedInterrupts()
    private let time = ManualTime()
    private let timer = ManualTimer()
    private var pit: PIT8254

    init() {
        pit = PIT8254(interrupt: InterruptLine(0, of: interrupts), time: time, timer: timer)
        pit.resume()
    }

    private func program(_ channel: UInt16, mode: UInt8, count: Int) {
        pit.write(UInt8(channel) << 6 | 0x30 | mode << 1, port: 0x43)
        pit.write(UInt8(truncatingIfNeeded: count), port: 0x40 + channel)
        pit.write(UInt8(truncatingIfNeeded: count >> 8), port: 0x40 + channel)
    }

    private func count(_ channel: UInt16) -> Int {
        pit.write(UInt8(channel) << 6, port: 0x43)
        return Int(pit.read(port: 0x40 + channel)) | Int(pit.read(port: 0x40 + channel)) << 8
    }

    /// Moves time on, calling the timer at its deadlines as the device thread does.
    private func run(_ nanoseconds: Int64) {
        let end = time.monotonic() + nanoseconds
        while let deadline = timer.deadline, deadline <= end {
            time.set(max(deadline, time.monotonic()))
            pit.tick()
        }
        time.set(end)
    }

    /// Another worker's timer with the same state.
    private func handOver(blackout: Int64) throws {
        pit.quiesce()
        #expect(timer.deadline == nil)
        let state = try roundTrip(pit.state(), version: 1)
        time.advance(blackout)
        pit = PIT8254(interrupt: InterruptLine(0, of: interrupts), time: time, timer: timer)
        pit.restore(state)
        pit.resume()
    }

    private var ticks: Int { interrupts.edges(0) }

    @Test(arguments: [2, 3] as [UInt8], [100, 1193, 11932, 0])
    func `ticks once a period, without drift`(mode: UInt8, count: Int) {
        program(0, mode: mode, count: count)
        run(10 * second)
        #expect(ticks == frequency * 10 / (count == 0 ? 65536 : count))
    }

    @Test func `periods too short to deliver are skipped, not queued`() {
        program(0, mode: 2, count: 2)
        run(2 * second)
        #expect((39_000...40_001).contains(ticks), "one every 50 microseconds")
        #expect(pit.skipped > 0)
    }

    @Test(arguments: [0, 4] as [UInt8])
    func `one-shot modes tick once`(mode: UInt8) {
        program(0, mode: mode, count: 11932)
        run(9 * second / 1000)
        #expect(ticks == 0)
        run(2 * second / 1000)
        #expect(ticks == 1 && timer.deadline == nil)
        run(second)
        #expect(ticks == 1)
    }

    @Test func `stops when it is programmed anew and not loaded`() {
        program(0, mode: 2, count: 1193)
        run(second / 2)
        let before = ticks
        pit.write(0x30, port: 0x43)
        #expect(timer.deadline == nil)
        run(second)
        #expect(ticks == before)
    }

    @Test(arguments: [0, 1, 17, 300_000, 999_999, 1_000_001, 2_345_678] as [Int64])
    func `across handovers no tick is lost or doubled and the phase stays`(blackout: Int64) throws {
        program(0, mode: 2, count: 11932)  // 10 ms
        var stretch: Int64 = 3_141_592
        for _ in 0..<200 {
            run(stretch)
            stretch = (stretch * 7 + 1_234_567) % 20_000_000
            try handOver(blackout: blackout)
        }
        run(20_000_000)
        let elapsed = time.monotonic() - second
        let due = elapsed * Int64(frequency) / second / 11932
        #expect(Int64(ticks) == due)
        let next = try #require(timer.deadline)
        let clocks = (due + 1) * 11932
        #expect(next == second + (clocks * second + Int64(frequency) - 1) / Int64(frequency), "the next tick is at its own phase")
    }

    @Test func `a tick due in the blackout follows a quarter period after it`() throws {
        program(0, mode: 2, count: 11932)
        run(9_000_000)
        try handOver(blackout: 2_000_000)
        #expect(ticks == 0)
        let deadline = try #require(timer.deadline)
        #expect((2_400_000...2_600_000).contains(deadline - time.monotonic()))
        run(3_000_000)
        #expect(ticks == 1)
        run(6_500_000)
        #expect(ticks == 2, "the next one comes in time")
    }

    @Test func `who is stopped again and again gets its ticks`() {
        program(0, mode: 2, count: 59659)  // 50 ms
        for _ in 0..<200 {
            run(2_000_000)
            pit.quiesce()
            time.advance(8_000_000)
            pit.resume()
        }
        #expect((38...40).contains(ticks), "2 s have passed, in 0.4 of which it ran")
        run(second)
        #expect(ticks == 60, "what was late is made up for")
    }

    @Test func `ticks of several missed periods follow one another at a distance`() throws {
        program(0, mode: 2, count: 1193)  // 1 ms
        run(second / 10)
        let before = ticks
        try handOver(blackout: 20_000_000)
        run(250_000)
        #expect(ticks <= before + 1)
        run(30_000_000)
        #expect(ticks - before == 50, "20 missed and 30 of now")
    }

    @Test func `what is overdue by more than a second is skipped and counted`() throws {
        program(0, mode: 2, count: 11932)
        run(second / 100)
        let before = ticks
        try handOver(blackout: 3600 * second)
        run(second)
        #expect((190...210).contains(ticks - before), "a second made up for, a second of now")
        #expect(pit.skipped > 350_000)
    }

    @Test func `quiesced it does not tick`() {
        program(0, mode: 2, count: 1193)
        pit.quiesce()
        time.advance(second)
        pit.tick()
        #expect(ticks == 0)
    }

    @Test func `counts down at 1.193182 MHz, in steps of two in mode 3`() {
        program(0, mode: 2, count: 10000)
        #expect(count(0) == 10000)
        time.advance(1_000_000)
        #expect(count(0) == 10000 - 1193)
        program(1, mode: 3, count: 10000)
        time.advance(1_000_000)
        #expect(count(1) == 10000 - 2 * 1193)
        program(2, mode: 0, count: 1000)
        #expect(count(2) == 1000)
    }

    @Test func `a latched count stands until it was read`() {
        program(0, mode: 2, count: 10000)
        time.advance(1_000_000)
        pit.write(0x00, port: 0x43)
        time.advance(1_000_000)
        pit.write(0x00, port: 0x43)
        let latched = Int(pit.read(port: 0x40)) | Int(pit.read(port: 0x40)) << 8
        #expect(latched == 10000 - 1193)
        #expect(count(0) == 10000 - 2386)
    }

    @Test func `the read-back command gives status and count`() {
        pit.write(0x36, port: 0x43)
        pit.write(0xE2, port: 0x43)
        #expect(pit.read(port: 0x40) == 0xF6, "OUT high, count not loaded, both bytes, mode 3")
        program(0, mode: 3, count: 10000)
        time.advance(5_000_000)
        pit.write(0xC2, port: 0x43)
        #expect(pit.read(port: 0x40) == 0x36, "OUT low in the second half")
        let low = Int(pit.read(port: 0x40))
        #expect(low | Int(pit.read(port: 0x40)) << 8 == 10000 - (2 * 5965 - 10000))
    }

    @Test func `channel 2 is measured through port 0x61`() {
        pit.write(0x01, port: 0x61)
        program(2, mode: 0, count: 11932)
        #expect(pit.read(port: 0x61) & 0x21 == 0x01)
        time.advance(9_990_000)
        #expect(pit.read(port: 0x61) & 0x20 == 0)
        time.advance(20_000)
        #expect(pit.read(port: 0x61) & 0x20 == 0x20)
    }

    @Test func `a low gate suspends channel 2`() {
        pit.write(0x01, port: 0x61)
        program(2, mode: 0, count: 11932)
        time.advance(5_000_000)
        pit.write(0x00, port: 0x61)
        let stood = count(2)
        time.advance(second)
        #expect(count(2) == stood && pit.read(port: 0x61) & 0x20 == 0)
        pit.write(0x01, port: 0x61)
        time.advance(5_010_000)
        #expect(pit.read(port: 0x61) & 0x20 == 0x20)
    }

    @Test func `a rising gate triggers a one-shot`() {
        program(2, mode: 1, count: 1193)
        #expect(pit.read(port: 0x61) & 0x20 == 0x20)
        pit.write(0x01, port: 0x61)
        #expect(pit.read(port: 0x61) & 0x20 == 0)
        time.advance(1_100_000)
        #expect(pit.read(port: 0x61) & 0x20 == 0x20)
    }

    @Test func `the refresh bit toggles every fifteen microseconds`() {
        let first = pit.read(port: 0x61) & 0x10
        time.advance(15_085)
        #expect(pit.read(port: 0x61) & 0x10 != first)
    }
}
