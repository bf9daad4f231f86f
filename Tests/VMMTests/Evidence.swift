import LinuxSystem

/// What the heartbeat guest publishes in its RAM (docs/guest.md).
struct Evidence {
    let ram: SharedMapping
    let vcpus: Int

    private static let machine = 0x20000
    private static let recordSize = 0x400

    private func word(_ offset: Int) -> UInt64 { ram.word(at: offset).load() }
    private func vcpu(_ index: Int, _ field: Int) -> UInt64 { word(Self.machine + Self.recordSize * (1 + index) + field) }

    var isThere: Bool { word(Self.machine) == 0x3142_484E_4F54_4142 }
    var damage: UInt64 { word(Self.machine + 0x48) }
    var beats: [UInt64] { (0..<vcpus).map { vcpu($0, 0) } }
    /// Ticks of local timers that are missing without excuse.
    var lost: UInt64 { (0..<vcpus).reduce(0) { $0 + vcpu($1, 0x180 + 0x20) } }
    var doubled: UInt64 { (0..<vcpus).reduce(0) { $0 + vcpu($1, 0x180 + 0x38) } }
    var ticks: UInt64 { (0..<vcpus).reduce(0) { $0 + vcpu($1, 0x180 + 0x10) } }
    var passes: UInt64 { (0..<vcpus).map { vcpu($0, 0x60) }.min() ?? 0 }
    /// kvmclock against the TSC, nanoseconds.
    var largestClockDifference: UInt64 { (0..<vcpus).map { vcpu($0, 0xA0) }.max() ?? 0 }

    /// Whether every vCPU goes on within `timeout`.
    func makesProgress(within timeout: Duration = .seconds(5)) -> Bool {
        let before = beats
        let end = SystemClock.monotonic() + timeout.nanoseconds
        while SystemClock.monotonic() < end {
            if isThere, zip(before, beats).allSatisfy({ $0 < $1 }) { return true }
            SystemClock.sleep(.milliseconds(5))
        }
        return false
    }
}
