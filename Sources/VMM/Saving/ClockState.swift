package import KVM
internal import LinuxSystem
internal import SystemPackage
package import Wire

/// kvmclock, with what is needed to let the time between saving and restoring pass in it.
package struct ClockState: Sendable, Equatable {
    package var data: ClockData
    /// CLOCK_MONOTONIC_RAW just before the clock was read.
    package var raw: Int64
    /// The host's TSC frequency, 0 when not known.
    package var tscKHz: UInt32

    package init(data: ClockData, raw: Int64, tscKHz: UInt32) {
        self.data = data
        self.raw = raw
        self.tscKHz = tscKHz
    }

    static func save(_ vm: VirtualMachine, tscKHz: UInt32) throws(VMMError) -> ClockState {
        let raw = SystemClock.raw()
        let data = try doing("reading the clock") { () throws(Errno) in try vm.clock() }
        return ClockState(data: data, raw: raw, tscKHz: tscKHz)
    }

    /// Sets the clock as it would stand now had it never stopped. After every vCPU has its TSC offset.
    func restore(to vm: VirtualMachine) throws(VMMError) {
        let now = Moment(raw: SystemClock.raw(), wall: SystemClock.wall(), tsc: SystemClock.tsc())
        try doing("restoring the clock") { () throws(Errno) in try vm.setClock(continued(at: now)) }
    }

    /// The host's clocks at one moment.
    package struct Moment: Sendable {
        package let raw: Int64
        package let wall: Int64
        package let tsc: UInt64
        package init(raw: Int64, wall: Int64, tsc: UInt64) {
            self.raw = raw
            self.wall = wall
            self.tsc = tsc
        }
    }

    /// What to set at `now`. The kernel adds wall-clock time itself, exactly; that is trusted only if the TSC agrees within 50 µs,
    /// since a wall clock can be stepped. KVM gives neither where the TSC is not stable: then the raw clock it is.
    package func continued(at now: Moment) -> ClockData {
        let hasBoth = data.flags.isSuperset(of: [.realtime, .hostTSC]) && tscKHz > 0
        guard hasBoth else {
            return ClockData(clock: data.clock &+ UInt64(max(0, now.raw.subtractingReportingOverflow(raw).partialValue)))
        }
        let ticks = now.tsc >= data.hostTSC ? now.tsc - data.hostTSC : 0
        let byTSC = Self.nanoseconds(ticks, at: UInt64(tscKHz))
        let byWall = now.wall &- Int64(clamping: data.realtime)
        if byWall.subtractingReportingOverflow(byTSC).partialValue.magnitude <= 50_000 {
            return ClockData(clock: data.clock, flags: [.realtime], realtime: data.realtime)
        }
        return ClockData(clock: data.clock &+ UInt64(byTSC))
    }

    /// Saturates at about a century.
    private static func nanoseconds(_ ticks: UInt64, at khz: UInt64) -> Int64 {
        let milliseconds = min(ticks / khz, 3_000_000_000_000)
        return Int64(milliseconds * 1_000_000 + ticks % khz * 1_000_000 / khz)
    }

    /// Section `clock`, version 1.
    package func encode(to writer: inout WireWriter) {
        writer.u64(data.clock)
        writer.u32(data.flags.rawValue)
        writer.u64(data.realtime)
        writer.u64(data.hostTSC)
        writer.i64(raw)
        writer.u32(tscKHz)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let clock = try reader.u64()
        let flags = ClockData.Flags(rawValue: try reader.u32())
        data = ClockData(clock: clock, flags: flags, realtime: try reader.u64(), hostTSC: try reader.u64())
        raw = try reader.i64()
        tscKHz = try reader.u32()
    }
}
