internal import GuestMemory
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Maps the pages of guest RAM that exist into this process, and from there into the VM: the long part of *prepare*.
///
/// A thread maps them into the process that runs only when nobody else wants the CPU. On a host whose CPUs are all busy it would never end, and
/// a SCHED_IDLE thread cannot be made an ordinary one without privilege; so the caller's thread takes over after a while. The caller follows with the
/// VM's page tables: that occupies a vCPU, which must not be left with a thread that waits for a CPU.
final class Population: Sendable {
    private let memory: GuestMemory
    private let pieces: [Range<Int>]
    /// Fills the VM's page tables; nil where KVM cannot: its MMU shadows the guest's, or it is older than Linux 6.11.
    private let vcpu: VCPU?
    /// Pieces below this are populated.
    private let finished = Atomic<Int>(0)
    /// Changes with each piece, and with a failure.
    private let steps = Futex()
    private let failure = Mutex<Errno?>(nil)

    private static let pieceSize = 16 << 20
    private static let patience = Duration.milliseconds(500)
    private static let patiencePerGiB = Duration.milliseconds(500)
    /// What is not in the VM's page tables by then the guest enters itself: the supervisor does not wait for ever.
    private static let timeToEnter = Duration.seconds(5)
    private static let timeToEnterPerGiB = Duration.milliseconds(500)

    /// - Parameters:
    ///   - extents: the stretches of RAM that have pages.
    ///   - vcpu: of the VM that RAM belongs to; nothing else is done with it meanwhile.
    init(_ memory: GuestMemory, _ extents: [Range<Int>], through vcpu: VCPU?) {
        self.memory = memory
        self.vcpu = vcpu
        pieces = extents.flatMap { extent in
            stride(from: extent.lowerBound, to: extent.upperBound, by: Self.pieceSize).map { $0..<min($0 + Self.pieceSize, extent.upperBound) }
        }
    }

    /// Populates everything. Bytes populated.
    func run() throws(Errno) -> Int {
        let idle = try SystemThread(name: "populate") { [self] in
            SystemThread.setEagerness(.background)
            populate()
        }
        idle.detach()
        let total = pieces.reduce(0) { $0 + $1.count }
        let deadline = SystemClock.deadline(after: Self.patience + Self.patiencePerGiB * (total >> 30))
        let lastEntry = SystemClock.deadline(after: Self.timeToEnter + Self.timeToEnterPerGiB * (total >> 30))
        var follows = vcpu != nil
        for (index, piece) in pieces.enumerated() where follows || index == pieces.count - 1 {
            waitFor(index, until: deadline)
            if let failure = failure.withLock({ $0 }) { throw failure }
            if follows { follows = SystemClock.monotonic() < lastEntry && enter(piece) }
        }
        return total
    }

    /// Waits until a piece is populated, and helps from the deadline on.
    private func waitFor(_ index: Int, until deadline: Int64) {
        while true {
            let seen = steps.value
            if finished.load(ordering: .acquiring) > index || failure.withLock({ $0 }) != nil { return }
            let left = deadline - SystemClock.monotonic()
            if left <= 0 { return populate() }
            steps.wait(while: seen, timeout: .nanoseconds(left))
        }
    }

    /// Goes on after the last finished piece, until none is left. Two threads at the same piece only do it twice.
    private func populate() {
        while true {
            let next = finished.load(ordering: .acquiring)
            if next >= pieces.count { return }
            do { _ = try memory.populate([pieces[next]]) } catch {
                failure.withLock { $0 = error }
                return steps.set(.max)
            }
            let (moved, _) = finished.compareExchange(expected: next, desired: next + 1, ordering: .acquiringAndReleasing)
            if moved { steps.set(UInt32(next + 1)) }
        }
    }

    /// Enters a piece into the VM's page tables; `false` when that cannot be done, and the guest will fault instead, as it would without.
    private func enter(_ piece: Range<Int>) -> Bool {
        guard let vcpu else { return false }
        for addresses in memory.layout.addresses(of: piece) {
            do { try vcpu.preFault(addresses) } catch { return false }
        }
        return true
    }
}
