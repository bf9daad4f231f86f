/// When channel 0 interrupts: the ticks of its output, each exactly once.
///
/// A tick is due when the output has risen; how many are due follows from the time counting began, never from how often somebody woke
/// up. So a blackout shorter than the period makes at most one tick late, the next is at its own phase, and none is lost or doubled.
/// When several periods have passed (a long blackout, a host that did not run the thread), the overdue ticks follow one another at a
/// quarter of the period, since two edges at once would reach the guest as one; the phase stays what it was. What is overdue by more
/// than a second is not made up for: a guest that was paused for an hour is not flooded with an hour of ticks. It is counted instead.
struct PITTicks: Sendable, Equatable {
    /// Ticks closer together than this are not delivered, in nanoseconds.
    static let shortestSpacing: Int64 = 50_000

    /// Ticks the guest has been given, or was spared, since counting began.
    var delivered: UInt64 = 0
    /// Ticks the guest was spared, ever.
    var skipped: UInt64 = 0
    /// No tick before this time; not carried over.
    private var notBefore: Int64 = .min
    /// How long the guest had still to wait for an overdue tick as it was stopped; nil where that is not known, in another worker.
    private var leftToWait: Int64?

    init(delivered: UInt64 = 0, skipped: UInt64 = 0) {
        self.delivered = delivered
        self.skipped = skipped
    }

    static func == (first: PITTicks, second: PITTicks) -> Bool {
        first.delivered == second.delivered && first.skipped == second.skipped
    }

    private func spacing(_ channel: PITChannel) -> Int64 {
        max(Self.shortestSpacing, PITChannel.nanoseconds(for: channel.period) / 4)
    }

    /// Counting begins anew.
    mutating func restart() {
        delivered = 0
        notBefore = .min
    }

    /// No more ticks until ``resume(_:at:)``.
    mutating func stop(at now: Int64) { leftToWait = notBefore > now ? notBefore - now : 0 }

    /// The guest runs again. It may not yet have seen the last tick it was given before, so an overdue one keeps its distance, of which only time in
    /// which the guest could run counts: one that is stopped again and again gets its ticks, too.
    mutating func resume(_ channel: PITChannel, at now: Int64) {
        if channel.edges(at: now) > delivered { notBefore = now &+ (leftToWait ?? spacing(channel)) }
        leftToWait = nil
    }

    /// Whether a tick is to be delivered now. It then counts as delivered.
    mutating func take(_ channel: PITChannel, at now: Int64) -> Bool {
        let edges = channel.edges(at: now)
        guard edges > delivered, now >= notBefore else { return false }
        let limit = max(1, PITChannel.frequency / channel.period)
        if edges - delivered > limit {
            skipped &+= edges - delivered - limit
            delivered = edges - limit
        }
        delivered += 1
        notBefore = now &+ spacing(channel)
        return true
    }

    /// When to look for the next tick; nil when none will come.
    func next(_ channel: PITChannel) -> Int64? {
        channel.time(ofEdge: delivered &+ 1).map { max($0, notBefore) }
    }
}
