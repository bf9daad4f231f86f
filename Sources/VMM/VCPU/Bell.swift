internal import LinuxSystem
internal import Synchronization

/// Where the threads of a machine's vCPUs sleep, so that one call wakes as many of them as are meant: a thread that wakes others one by one loses its CPU
/// to the first of them that it shares it with.
final class Bell: Sendable {
    /// Changes with each ring. A thread reads it before it looks for what it would be woken for.
    private let rings = Futex()
    private let rung = Atomic<UInt32>(0)

    var value: UInt32 { rings.value }

    /// The bit by which a thread is meant. Some may have the same: those wake in vain.
    static func bit(of index: Int) -> UInt32 { 1 &<< UInt32(index & 31) }

    /// Wakes the threads that `those` has a bit of. What they are woken for is there already.
    func ring(_ those: UInt32) {
        rings.store(rung.add(1, ordering: .sequentiallyConsistent).newValue)
        rings.wake(those: those)
    }

    /// Sleeps unless it has rung since `value` was read. May return early.
    func wait(since value: UInt32, as bit: UInt32) { rings.wait(while: value, as: bit) }
}
