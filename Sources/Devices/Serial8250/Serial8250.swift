internal import Synchronization

/// Where the bytes that a guest sends go.
package protocol ByteSink: Sendable {
    /// Takes as many bytes as fit now and returns how many that were; never waits. nil: it is broken and will never take one.
    func write(_ bytes: Span<UInt8>) -> Int?
}

/// A serial port with the registers of a 16550A: COM1 of model `baton-1` at 0x3F8, interrupt 4.
///
/// Sending never makes a vCPU wait. What the sink does not take is kept up to ``outputLimit`` and given to it when it takes more;
/// beyond that it is dropped and counted. A line is written at its end, a beginning of one 2 ms after its first byte.
package final class Serial8250: Device, PortDevice {
    /// Bytes kept for a sink that is full.
    package static let outputLimit = 16 << 10
    /// Without a line end, bytes are written when so many are there.
    private static let burst = 256
    /// How long the beginning of a line may wait for its end, in nanoseconds.
    private static let patience: Int64 = 2_000_000

    private struct Live: ~Copyable {
        var registers = SerialRegisters()
        var unsent: [UInt8] = []
        var dropped: UInt64 = 0
        var line = false
        /// When what waits is to be written, on the monotonic clock.
        var flushAt: Int64?
        /// The sink took less than it was given: wait until it takes more.
        var isBlocked = false
    }

    package let ports: [ClosedRange<UInt16>]
    private let base: UInt16
    private let interrupt: InterruptLine
    private let sink: any ByteSink
    private let time: any TimeSource
    private let live: Mutex<Live>
    /// Called when the device thread must look anew: room to receive, or output that waits.
    private let onChange: Mutex<(@Sendable () -> Void)?> = Mutex(nil)

    package init(base: UInt16 = 0x3F8, interrupt: InterruptLine, sink: any ByteSink, time: any TimeSource) {
        self.base = base
        ports = [base...base + 7]
        self.interrupt = interrupt
        self.sink = sink
        self.time = time
        var live = Live()
        live.unsent.reserveCapacity(Self.outputLimit)
        self.live = Mutex(live)
    }

    /// Sets what is called when ``room`` or ``output`` has changed on a vCPU's thread.
    func setChangeHandler(_ handler: (@Sendable () -> Void)?) { onChange.withLock { $0 = handler } }

    // What the guest does.

    package func read(port: UInt16) -> UInt8 {
        let (value, hasRoom) = live.withLock { live in
            let before = live.registers.room
            let value = live.registers.read(port &- base)
            updateLine(&live)
            return (value, before == 0 && live.registers.room > 0)
        }
        if hasRoom { notifyChange() }
        return value
    }

    package func write(_ value: UInt8, port: UInt16) {
        let notify = live.withLock { live in
            let room = live.registers.room
            let sent = live.registers.write(value, port &- base)
            updateLine(&live)
            let waits = sent.map { send($0, &live) } ?? false
            return waits || room == 0 && live.registers.room > 0
        }
        if notify { notifyChange() }
    }

    private func notifyChange() { onChange.withLock { $0 }?() }

    private func updateLine(_ live: inout Live) {
        let level = live.registers.interrupts
        if level == live.line { return }
        live.line = level
        if level { interrupt.raise() } else { interrupt.lower() }
    }

    /// Takes a byte to send; whether the device thread has something new to wait for.
    private func send(_ byte: UInt8, _ live: inout Live) -> Bool {
        if live.unsent.count >= Self.outputLimit {
            live.dropped &+= 1
            return false
        }
        live.unsent.append(byte)
        if live.isBlocked { return false }
        if byte == 0x0A || live.unsent.count >= Self.burst {
            flush(&live)
            return live.isBlocked
        }
        if live.flushAt != nil { return false }
        live.flushAt = time.monotonic() + Self.patience
        return true
    }

    private func flush(_ live: inout Live) {
        live.flushAt = nil
        guard !live.unsent.isEmpty else { return }
        guard let taken = sink.write(live.unsent.span) else {
            live.dropped &+= UInt64(live.unsent.count)
            live.unsent.removeAll(keepingCapacity: true)
            return
        }
        live.unsent.removeFirst(min(taken, live.unsent.count))
        live.isBlocked = !live.unsent.isEmpty
    }

    // What the device thread does.

    /// Bytes that can be received now without an overrun.
    package var room: Int { live.withLock { $0.registers.room } }

    /// Whether output waits for a full sink, and when output that waits for its line's end is due.
    package var output: (isBlocked: Bool, flushAt: Int64?) { live.withLock { ($0.isBlocked, $0.flushAt) } }

    /// Bytes of the guest that nobody will see.
    package var dropped: UInt64 { live.withLock { $0.dropped } }

    /// Bytes arrive on the line. More than ``room`` overrun the receiver.
    package func receive(_ bytes: [UInt8]) {
        live.withLock { live in
            for byte in bytes { live.registers.receive(byte) }
            updateLine(&live)
        }
    }

    /// Gives the sink what waits.
    package func flushOutput() { live.withLock { flush(&$0) } }

    // Handing over.

    package func quiesce() { flushOutput() }
    package func resume() { live.withLock { flush(&$0) } }

    package func state() -> Serial8250State {
        live.withLock { Serial8250State($0.registers, unsent: $0.unsent, dropped: $0.dropped) }
    }

    package func restore(_ state: Serial8250State) {
        live.withLock { live in
            live.registers = state.registers
            live.unsent.removeAll(keepingCapacity: true)
            live.unsent += state.unsent
            live.dropped = state.dropped
            live.line = live.registers.interrupts
            live.flushAt = nil
            live.isBlocked = false
        }
    }
}
