internal import LinuxSystem
internal import Synchronization

/// Lets one thread wait until several others have arrived. Allocated once, used again and again.
final class Latch: Sendable {
    private let missing = Atomic<Int>(0)
    private let opened = Futex(1)
    private let wakes: Bool
    /// How often who is not woken looks.
    private static let glance = Duration.microseconds(200)

    /// `wakes`: whether the last arrival wakes who waits. Waking a thread on an idle CPU takes the one who does it 5 to 20 µs; where that one has the
    /// guest to think of, and the other only needs to know some time, the other looks now and then.
    init(wakes: Bool = true) { self.wakes = wakes }

    /// Closes the latch for `count` arrivals. Nobody may be waiting or arriving.
    func close(for count: Int) {
        missing.store(count, ordering: .sequentiallyConsistent)
        opened.set(count == 0 ? 1 : 0)
    }

    func arrive() {
        guard missing.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 else { return }
        if wakes { opened.set(1) } else { opened.store(1) }
    }

    /// Waits for the last arrival; `false` when `timeout` passed first.
    func wait(timeout: Duration) -> Bool {
        if wakes { return opened.waitUntil(not: 0, timeout: timeout) }
        let end = SystemClock.deadline(after: timeout)
        while opened.value == 0 {
            let left = end - SystemClock.monotonic()
            if left <= 0 { return false }
            opened.wait(while: 0, timeout: min(.nanoseconds(left), Self.glance))
        }
        return true
    }
}
