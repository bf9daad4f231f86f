internal import LinuxSystem
internal import Synchronization

/// Lets one thread wait until several others have arrived. Allocated once, used again and again.
///
/// Waking a thread on an idle CPU takes the one who does it 5 to 20 µs, and a thread that wakes where a vCPU's runs takes its CPU. Where the guest waits
/// for the one who arrives, and whoever waits needs to know some time only, the last one arrives quietly, and the other one sees it when it looks.
///
/// Falling asleep and waking again takes a thread on a CPU of its own 30 to 70 µs: where whatever it waits for is under way on other CPUs it watches for
/// a moment first.
final class Latch: Sendable {
    private let missing = Atomic<Int>(0)
    private let opened = Futex(1)
    /// How often whoever waits looks; `nil`: nobody arrives quietly.
    private let glance: Duration?

    init(glance: Duration? = nil) { self.glance = glance }

    /// Closes the latch for `count` arrivals. Nobody may be waiting or arriving.
    func close(for count: Int) {
        missing.store(count, ordering: .sequentiallyConsistent)
        opened.set(count == 0 ? 1 : 0)
    }

    func arrive(quietly: Bool = false) {
        guard missing.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 else { return }
        if quietly { opened.store(1) } else { opened.set(1) }
    }

    /// Whether the last one has arrived, now or within a moment.
    func isOpen(watching: Duration) -> Bool { opened.watch(while: 0, for: watching) }

    /// Waits for the last arrival; `false` when `timeout` passed first.
    func wait(timeout: Duration, watching: Duration = .zero) -> Bool {
        if isOpen(watching: watching) { return true }
        guard let glance else { return opened.waitUntil(not: 0, timeout: timeout) }
        let end = SystemClock.deadline(after: timeout)
        while opened.value == 0 {
            let left = end - SystemClock.monotonic()
            if left <= 0 { return false }
            opened.wait(while: 0, timeout: min(.nanoseconds(left), glance))
        }
        return true
    }
}
