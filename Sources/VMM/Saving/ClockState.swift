package import KVM
internal import LinuxSystem
internal import SystemPackage
package import Wire

/// kvmclock, with what is needed to let the time between saving and restoring pass in it.
package struct ClockState: Sendable, Equatable {
    package var data: ClockData
    /// CLOCK_MONOTONIC_RAW when the clock was read.
    package var raw: Int64
    /// The host's TSC frequency, 0 when not known.
    package var tscKHz: UInt32

    package init(data: ClockData, raw: Int64, tscKHz: UInt32) {
        self.data = data
        self.raw = raw
        self.tscKHz = tscKHz
    }

    static func save(_ vm: VirtualMachine, tscKHz: UInt32) throws(VMMError) -> ClockState {
        let (data, raw) = try doing("reading the clock") { () throws(Errno) in try read(vm) }
        return ClockState(data: data, raw: raw, tscKHz: tscKHz)
    }

    /// The VM's clock and the raw clock at one moment. Where KVM does not say at which TSC it has read its own, as with vCPUs whose TSCs do not
    /// match, all there is are two readings of the raw clock around it: the closest pair of several counts.
    private static func read(_ vm: VirtualMachine) throws(Errno) -> (ClockData, raw: Int64) {
        var best: (data: ClockData, raw: Int64)?
        var closest = Int64.max
        for _ in 0..<pairs {
            let before = SystemClock.raw()
            let data = try vm.clock()
            let between = SystemClock.raw() - before
            if between >= closest { continue }
            closest = between
            best = (data, before + between / 2)
            if data.flags.contains(.hostTSC) || between < closePair { break }
        }
        guard let best else { throw Errno.resourceTemporarilyUnavailable }
        return best
    }

    private static let pairs = 10
    /// Nanoseconds that reading a clock by a system call may well take.
    private static let closePair: Int64 = 2_000

    /// Sets the clock as it would stand now had it never stopped. After every vCPU has its TSC offset.
    ///
    /// The kernel takes the value a moment after it was computed, and a thousand handovers would add that up. So the clock is read back
    /// and set again with what the kernel needs at least, until it is right; once or twice does when caches are warm. On a busy host this
    /// thread may lose its processor between reading and setting: such an attempt says nothing about the kernel and is made again.
    func restore(to vm: VirtualMachine) throws(VMMError) {
        var correction: Int64 = 0
        var least = Int64.max
        try doing("restoring the clock") { () throws(Errno) in
            for attempt in 0..<Self.attempts {
                let now = clock(at: Moment(raw: SystemClock.raw(), tsc: SystemClock.tsc()))
                try vm.setClock(ClockData(clock: now &+ UInt64(bitPattern: correction)))
                let off = try offset(of: vm)
                if off.magnitude <= Self.tolerance(of: attempt) { return }
                least = min(least, off &+ correction)
                correction = least
            }
        }
    }

    private static let attempts = 30

    /// How far off an attempt may leave the clock, in nanoseconds: the longer it takes, the more.
    private static func tolerance(of attempt: Int) -> UInt64 { attempt < 6 ? 60 : attempt < 12 ? 1_000 : 20_000 }

    /// How much the VM's clock lags behind what it should be.
    private func offset(of vm: VirtualMachine) throws(Errno) -> Int64 {
        let tsc = SystemClock.tsc()
        let (found, raw) = try Self.read(vm)
        let between = tsc &+ (SystemClock.tsc() &- tsc) / 2
        return Int64(bitPattern: clock(at: Moment(raw: raw, tsc: found.flags.contains(.hostTSC) ? found.hostTSC : between)) &- found.clock)
    }

    /// The host's clocks at one moment.
    package struct Moment: Sendable {
        package let raw: Int64
        package let tsc: UInt64
        package init(raw: Int64, tsc: UInt64) {
            self.raw = raw
            self.tsc = tsc
        }
    }

    /// What the clock stands at at a moment: by the TSC where KVM read both together, else by the raw clock.
    /// Never by the wall clock, which is stepped.
    package func clock(at moment: Moment) -> UInt64 {
        guard data.flags.contains(.hostTSC), tscKHz > 0 else {
            return data.clock &+ UInt64(bitPattern: max(0, moment.raw.subtractingReportingOverflow(raw).partialValue))
        }
        let ticks = moment.tsc >= data.hostTSC ? moment.tsc - data.hostTSC : 0
        return data.clock &+ Self.nanoseconds(ticks, at: UInt64(tscKHz))
    }

    /// Saturates at about a century.
    private static func nanoseconds(_ ticks: UInt64, at khz: UInt64) -> UInt64 {
        min(ticks / khz, 3_000_000_000_000) * 1_000_000 + ticks % khz * 1_000_000 / khz
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
