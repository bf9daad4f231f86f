/// What of the interval timer is carried from worker to worker.
package struct PIT8254State: Sendable, Equatable {
    /// One counter.
    package struct Channel: Sendable, Equatable {
        /// Control word bits 5 to 0: access, mode (0 to 5), BCD.
        package var control: UInt8 = 0
        /// The count register; 0 counts 65536.
        package var reload: UInt16 = 0
        /// The count was written after the control word.
        package var isLoaded = false
        /// When counting began, CLOCK_MONOTONIC of the host in nanoseconds: the phase.
        package var started: Int64?
        /// Level of the gate.
        package var gate = true
        /// Nanoseconds counted when a low gate suspended counting.
        package var suspended: Int64?
        /// Low byte written, high byte to come.
        package var pendingLow: UInt8?
        /// Low byte read, high byte next.
        package var readsHigh = false
        package var latchedCount: UInt16?
        package var latchedStatus: UInt8?

        package init() {}
    }

    /// Channels 0, 1 and 2.
    package var channels: [Channel] = [Channel(), Channel(), Channel()]
    /// Rises of channel 0's output since counting began that the guest has been given as interrupts, or was spared.
    package var delivered: UInt64 = 0
    /// Ticks spared the guest because they were overdue by more than a second.
    package var skipped: UInt64 = 0
    /// Port 0x61 bits 0 (gate of channel 2) and 1 (speaker), as written.
    package var speaker: UInt8 = 0

    package init() {}
}

extension PIT8254State.Channel {
    init(_ channel: PITChannel) {
        control = channel.control
        reload = channel.reload
        isLoaded = channel.isLoaded
        started = channel.started
        gate = channel.gate
        suspended = channel.suspended
        pendingLow = channel.pendingLow
        readsHigh = channel.readsHigh
        latchedCount = channel.latchedCount
        latchedStatus = channel.latchedStatus
    }

    /// The live channel of this state.
    var channel: PITChannel {
        var channel = PITChannel()
        channel.control = control
        channel.reload = reload
        channel.isLoaded = isLoaded
        channel.started = started
        channel.gate = gate
        channel.suspended = suspended
        channel.pendingLow = pendingLow
        channel.readsHigh = readsHigh
        channel.latchedCount = latchedCount
        channel.latchedStatus = latchedStatus
        return channel
    }
}
