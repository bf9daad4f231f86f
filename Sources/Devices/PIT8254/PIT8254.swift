internal import Synchronization

/// The interval timer of model `baton-1` (Intel 8254) at 0x40 with the port of its third channel and the speaker at 0x61.
///
/// It lives here and not in the kernel because the phase of the kernel's cannot be read. Channel 0 is GSI 0: each rise of its
/// output is one edge, see ``PITTicks`` for what becomes of those that a blackout delays.
package final class PIT8254: Device, PortDevice {
    private struct Live: ~Copyable {
        var channels: InlineArray<3, PITChannel> = .init(repeating: PITChannel())
        var ticks = PITTicks()
        var speaker: UInt8 = 0
        var isQuiesced = true

        init() { channels[2].gate = false }
    }

    private static let controlPort: UInt16 = 0x43
    private static let speakerPort: UInt16 = 0x61
    /// Half the period of the refresh signal at port 0x61 bit 4, in nanoseconds.
    private static let refresh: Int64 = 15_085

    package let ports: [ClosedRange<UInt16>] = [0x40...0x43, 0x61...0x61]
    private let interrupt: InterruptLine
    private let time: any TimeSource
    private let timer: any DeadlineTimer
    private let live = Mutex(Live())

    package init(interrupt: InterruptLine, time: any TimeSource, timer: any DeadlineTimer) {
        self.interrupt = interrupt
        self.time = time
        self.timer = timer
    }

    // What the guest does.

    package func read(port: UInt16) -> UInt8 {
        let now = time.monotonic()
        return live.withLock { live in
            switch port {
            case Self.speakerPort:
                let refresh: UInt8 = (now / Self.refresh) & 1 == 1 ? 0x10 : 0
                return live.speaker | refresh | (live.channels[2].output(at: now) ? 0x20 : 0)
            case Self.controlPort: return 0xFF  // write-only
            default: return live.channels[Int(port & 3)].read(at: now)
            }
        }
    }

    package func write(_ value: UInt8, port: UInt16) {
        let now = time.monotonic()
        live.withLock { live in
            switch port {
            case Self.speakerPort:
                live.speaker = value & 3
                live.channels[2].setGate(value & 1 != 0, at: now)
            case Self.controlPort: control(value, at: now, &live)
            default:
                let index = Int(port & 3)
                let isLoaded = live.channels[index].writeCount(value, at: now)
                if index == 0 && isLoaded { restart(&live) }
            }
        }
    }

    private func control(_ value: UInt8, at now: Int64, _ live: inout Live) {
        let select = Int(value >> 6)
        if select == 3 { return readBack(value, at: now, &live) }
        if value & 0x30 == 0 { return live.channels[select].latchCount(at: now) }
        live.channels[select].program(value, at: now)
        if select == 0 { restart(&live) }
    }

    /// The read-back command: bits 1 to 3 choose channels, bits 5 and 4 clear latch count and status.
    private func readBack(_ value: UInt8, at now: Int64, _ live: inout Live) {
        for index in 0..<3 where value & (2 << UInt8(index)) != 0 {
            if value & 0x20 == 0 { live.channels[index].latchCount(at: now) }
            if value & 0x10 == 0 { live.channels[index].latchStatus(at: now) }
        }
    }

    private func restart(_ live: inout Live) {
        live.ticks.restart()
        arm(&live)
    }

    // What the device thread does.

    /// Delivers a tick if one is due, and sets the timer for the next.
    package func tick() {
        let now = time.monotonic()
        live.withLock { live in
            if live.isQuiesced { return }
            if live.ticks.take(live.channels[0], at: now) { interrupt.pulse() }
            arm(&live)
        }
    }

    private func arm(_ live: inout Live) {
        if !live.isQuiesced { timer.set(live.ticks.next(live.channels[0])) }
    }

    /// Ticks the guest was spared because they were overdue by more than a second.
    package var skipped: UInt64 { live.withLock { $0.ticks.skipped } }

    // Handing over.

    package func quiesce() {
        let now = time.monotonic()
        live.withLock { live in
            if live.isQuiesced { return }
            live.isQuiesced = true
            live.ticks.stop(at: now)
            timer.set(nil)
        }
    }

    package func resume() {
        let now = time.monotonic()
        live.withLock { live in
            guard live.isQuiesced else { return }
            live.isQuiesced = false
            live.ticks.resume(live.channels[0], at: now)
            arm(&live)
        }
    }

    package func state() -> PIT8254State {
        live.withLock { live in
            var state = PIT8254State()
            for index in 0..<3 { state.channels[index] = PIT8254State.Channel(live.channels[index]) }
            state.delivered = live.ticks.delivered
            state.skipped = live.ticks.skipped
            state.speaker = live.speaker
            return state
        }
    }

    package func restore(_ state: PIT8254State) {
        precondition(state.channels.count == 3, "an 8254 has three counters")
        live.withLock { live in
            for index in 0..<3 { live.channels[index] = state.channels[index].channel }
            live.ticks = PITTicks(delivered: state.delivered, skipped: state.skipped)
            live.speaker = state.speaker
        }
    }
}
