import Devices
import Synchronization

/// Interrupt controllers that count edges and remember levels.
final class RecordedInterrupts: InterruptController {
    private let pins = Mutex<[UInt32: (level: Bool, edges: Int)]>([:])

    func setLevel(_ high: Bool, gsi: UInt32) {
        pins.withLock { pins in
            var pin = pins[gsi] ?? (false, 0)
            if high && !pin.level { pin.edges += 1 }
            pin.level = high
            pins[gsi] = pin
        }
    }

    func level(_ gsi: UInt32) -> Bool { pins.withLock { $0[gsi]?.level ?? false } }
    func edges(_ gsi: UInt32) -> Int { pins.withLock { $0[gsi]?.edges ?? 0 } }
}

/// A clock that stands until it is moved.
final class ManualTime: TimeSource {
    private let now: Mutex<Int64>
    private let date: Mutex<Int64>

    init(_ now: Int64 = 1_000_000_000, wall: Int64 = 0) {
        self.now = Mutex(now)
        date = Mutex(wall)
    }

    func monotonic() -> Int64 { now.withLock { $0 } }
    func wall() -> Int64 { date.withLock { $0 } }
    func advance(_ nanoseconds: Int64) { now.withLock { $0 += nanoseconds } }
    func set(_ time: Int64) { now.withLock { $0 = time } }
    func setWall(_ time: Int64) { date.withLock { $0 = time } }
}

/// A timer that remembers when it was to call.
final class ManualTimer: DeadlineTimer {
    private let due = Mutex<Int64?>(nil)
    func set(_ deadline: Int64?) { due.withLock { $0 = deadline } }
    var deadline: Int64? { due.withLock { $0 } }
}

/// A sink with so much room.
final class RecordedSink: ByteSink {
    private let state = Mutex<(bytes: [UInt8], room: Int, isBroken: Bool)>(([], .max, false))

    func write(_ bytes: Span<UInt8>) -> Int? {
        var copy: [UInt8] = []
        for index in 0..<bytes.count { copy.append(bytes[index]) }
        return state.withLock { [copy] state in
            if state.isBroken { return nil }
            let count = min(copy.count, state.room)
            state.bytes += copy[..<count]
            state.room -= count
            return count
        }
    }

    var text: String { state.withLock { String(decoding: $0.bytes, as: UTF8.self) } }
    func setRoom(_ room: Int) { state.withLock { $0.room = room } }
    func breakDown() { state.withLock { $0.isBroken = true } }
}

/// Remembers what guests asked for.
final class RecordedRequests: PowerObserver {
    private let list = Mutex<[PowerRequest]>([])
    func guestRequested(_ request: PowerRequest) { list.withLock { $0.append(request) } }
    var all: [PowerRequest] { list.withLock { $0 } }
}
