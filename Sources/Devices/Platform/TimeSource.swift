internal import LinuxSystem

/// What time it is, for devices.
package protocol TimeSource: Sendable {
    /// CLOCK_MONOTONIC in nanoseconds: the same for every process of the host, so that a phase can be handed over as a point on it.
    func monotonic() -> Int64
    /// CLOCK_REALTIME in nanoseconds since 1970.
    func wall() -> Int64
}

/// The host's clocks.
package struct HostTime: TimeSource {
    package init() {}
    package func monotonic() -> Int64 { SystemClock.monotonic() }
    package func wall() -> Int64 { SystemClock.wall() }
}
