internal import GuestMemory
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Maps the pages of guest RAM that exist into this process: the long part of *prepare*.
///
/// A thread does it that runs only when nobody else wants the CPU. On a host whose CPUs are all busy it would never end, and a
/// SCHED_IDLE thread cannot be made an ordinary one without privilege; so the caller's thread takes over after a while.
final class Population: Sendable {
    private let memory: GuestMemory
    private let pieces: [Range<Int>]
    /// Pieces below this are populated.
    private let finished = Atomic<Int>(0)
    private let isOver = Futex()
    private let failure = Mutex<Errno?>(nil)

    private static let pieceSize = 16 << 20
    private static let patience = Duration.milliseconds(500)
    private static let patiencePerGiB = Duration.milliseconds(500)

    /// - Parameter extents: the stretches of RAM that have pages.
    init(_ memory: GuestMemory, _ extents: [Range<Int>]) {
        self.memory = memory
        pieces = extents.flatMap { extent in
            stride(from: extent.lowerBound, to: extent.upperBound, by: Self.pieceSize).map { $0..<min($0 + Self.pieceSize, extent.upperBound) }
        }
    }

    /// Populates everything. Bytes populated.
    func run() throws(Errno) -> Int {
        let idle = try SystemThread(name: "populate") { [self] in
            SystemThread.setEagerness(.background)
            populate()
            isOver.set(1)
        }
        idle.detach()
        let total = pieces.reduce(0) { $0 + $1.count }
        if !isOver.waitUntil(not: 0, timeout: Self.patience + Self.patiencePerGiB * (total >> 30)) { populate() }
        if let failure = failure.withLock({ $0 }) { throw failure }
        return total
    }

    /// Goes on after the last finished piece, until none is left. Two threads at the same piece only do it twice.
    private func populate() {
        while true {
            let next = finished.load(ordering: .acquiring)
            if next >= pieces.count { return }
            do { _ = try memory.populate([pieces[next]]) } catch {
                failure.withLock { $0 = error }
                return
            }
            _ = finished.compareExchange(expected: next, desired: next + 1, ordering: .acquiringAndReleasing)
        }
    }
}
