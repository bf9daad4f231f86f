package import LinuxSystem
internal import Synchronization
package import SystemPackage

/// The far end of a serial port: a byte stream that outlives the worker. What is not read from it here is there for the next worker.
package final class Console: ByteSink {
    private let stream: SharedDescriptor
    private let inputEnded = Atomic<Bool>(false)

    /// - Parameter stream: a socket, pipe or terminal; made non-blocking, for everyone who has it.
    package init(_ stream: SharedDescriptor) throws(Errno) {
        self.stream = stream
        try stream.descriptor.setNonBlocking(true)
    }

    var number: CInt { stream.number }

    /// Whether more input can come.
    var takesInput: Bool { !inputEnded.load(ordering: .relaxed) }

    package func write(_ bytes: Span<UInt8>) -> Int? {
        do { return try stream.descriptor.write(bytes) } catch {
            return error == .resourceTemporarilyUnavailable ? 0 : nil
        }
    }

    /// Input that is there, at most `count` bytes.
    func read(upTo count: Int) -> [UInt8] {
        do {
            let bytes = try stream.descriptor.read(upTo: count)
            if bytes.isEmpty { inputEnded.store(true, ordering: .relaxed) }
            return bytes
        } catch {
            if error != .resourceTemporarilyUnavailable { inputEnded.store(true, ordering: .relaxed) }
            return []
        }
    }
}

/// Moves bytes between a console and a serial port: input only as far as the port has room, output when the console takes it again.
final class ConsolePump: EventSource {
    private let console: Console
    private let serial: Serial8250

    init(_ console: Console, _ serial: Serial8250) {
        self.console = console
        self.serial = serial
    }

    func interest() -> (number: CInt, readiness: Readiness)? {
        var readiness: Readiness = []
        if serial.room > 0 && console.takesInput { readiness.insert(.readable) }
        if serial.output.isBlocked { readiness.insert(.writable) }
        return readiness.isEmpty ? nil : (console.number, readiness)
    }

    func deadline() -> Int64? { serial.output.flushAt }

    func handle(_ readiness: Readiness) {
        if readiness.isEmpty || !readiness.isDisjoint(with: [.writable, .failed, .hungUp]) { serial.flushOutput() }
        let room = serial.room
        if !readiness.isDisjoint(with: [.readable, .failed, .hungUp]) && room > 0 && console.takesInput {
            serial.receive(console.read(upTo: room))
        }
    }
}

/// Calls the interval timer when its kernel timer has expired.
final class TickSource: EventSource {
    private let timer: HostTimer
    private let pit: PIT8254

    init(_ timer: HostTimer, _ pit: PIT8254) {
        self.timer = timer
        self.pit = pit
    }

    func interest() -> (number: CInt, readiness: Readiness)? { (timer.number, .readable) }

    func handle(_ readiness: Readiness) {
        timer.acknowledge()
        pit.tick()
    }
}
