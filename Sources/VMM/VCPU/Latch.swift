internal import LinuxSystem
internal import Synchronization

/// Lets one thread wait until several others have arrived. Allocated once, used again and again.
final class Latch: Sendable {
    private let missing = Atomic<Int>(0)
    private let opened = Futex(1)

    /// Closes the latch for `count` arrivals. Nobody may be waiting or arriving.
    func close(for count: Int) {
        missing.store(count, ordering: .sequentiallyConsistent)
        opened.set(count == 0 ? 1 : 0)
    }

    func arrive() {
        if missing.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 { opened.set(1) }
    }

    /// Waits for the last arrival; `false` when `timeout` passed first.
    func wait(timeout: Duration) -> Bool { opened.waitUntil(not: 0, timeout: timeout) }
}
