package import LinuxSystem
internal import Synchronization
package import SystemPackage

/// What a device's descriptor is watched for.
package protocol EventSource: AnyObject, Sendable {
    /// The descriptor and what to wait for now; nil for nothing. Asked before every wait, so it needs no notice while it only changes
    /// on the device thread; otherwise ``DeviceThread/wake()`` makes it be asked again.
    func interest() -> (number: CInt, readiness: Readiness)?
    /// When to be called without anything having come, on CLOCK_MONOTONIC in nanoseconds; nil for never.
    func deadline() -> Int64?
    /// Something came, or the deadline passed (`[]`). Does not block.
    func handle(_ readiness: Readiness)
}

extension EventSource {
    package func deadline() -> Int64? { nil }
}

/// The thread on which devices act on their own: timers that expire, console input.
///
/// It can be parked and go on any number of times. Nothing is lost meanwhile: it waits level-triggered, and what has come and was not
/// taken stays in its descriptor, for this process or for the next one that holds it.
package final class DeviceThread: Sendable {
    private enum Goal: UInt32 {
        case park = 0
        case run = 1
        case finish = 2
    }

    private let name: String
    private let sources: [any EventSource]
    private let goal = Atomic<UInt32>(Goal.park.rawValue)
    /// Changes with every order, after the goal has.
    private let orders = Futex()
    /// The last order the thread has seen, told while no handler runs.
    private let acknowledged = Futex()
    private let bell: EventDescriptor
    private let thread = Mutex<SystemThread?>(nil)

    /// - Parameter name: shows in `/proc/PID/task/TID/comm`.
    package init(name: String, sources: [any EventSource]) throws(Errno) {
        self.name = name
        self.sources = sources
        bell = try EventDescriptor()
    }

    /// Starts the thread, parked. What is allocated here is not allocated later.
    package func start() throws(Errno) {
        let started = try SystemThread(name: name) { [self] in loop() }
        thread.withLock { $0 = started }
    }

    /// Lets the sources be handled. Orders come from one thread at a time.
    package func run() { order(.run) }

    /// Stops handling and waits until no handler runs any more; `false` when `timeout` passed first.
    package func park(timeout: Duration) -> Bool {
        // Parked already: another order would only wait for a thread that has nothing to say, in a blackout perhaps.
        if currentGoal == .park, acknowledged.value == orders.value { return true }
        let number = order(.park)
        if thread.withLock({ $0 == nil }) { return true }
        let end = SystemClock.deadline(after: timeout)
        while true {
            let found = acknowledged.value
            if found == number { return true }
            let left = end - SystemClock.monotonic()
            if left <= 0 { return false }
            acknowledged.wait(while: found, timeout: .nanoseconds(left))
        }
    }

    /// Asks the sources again what they wait for.
    package func wake() { bell.signal() }

    /// Ends the thread and waits for its end.
    package func finish() {
        order(.finish)
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }

    @discardableResult
    private func order(_ next: Goal) -> UInt32 {
        goal.store(next.rawValue, ordering: .sequentiallyConsistent)
        let number = orders.value &+ 1
        orders.set(number)
        bell.signal()
        return number
    }

    private var currentGoal: Goal { Goal(rawValue: goal.load(ordering: .sequentiallyConsistent)) ?? .finish }

    private func loop() {
        var poll = Poll()
        var watched: [Int] = []
        watched.reserveCapacity(sources.count)  // a thread's first allocation takes long
        while true {
            let seen = orders.value  // before the goal: an order after this is seen next time
            let goal = currentGoal
            if acknowledged.value != seen { acknowledged.set(seen) }
            switch goal {
            case .finish: return
            case .park: orders.wait(while: seen)
            case .run: wait(&poll, &watched)
            }
        }
    }

    private func wait(_ poll: inout Poll, _ watched: inout [Int]) {
        poll.removeAll()
        watched.removeAll(keepingCapacity: true)
        poll.add(bell.descriptor.number)
        var first: Int64?
        for (index, source) in sources.enumerated() {
            if let interest = source.interest() {
                poll.add(interest.number, interest.readiness)
                watched.append(index)
            }
            if let deadline = source.deadline() { first = min(first ?? deadline, deadline) }
        }
        let timeout = first.map { Duration.nanoseconds(max(0, $0 - SystemClock.monotonic())) }
        guard (try? poll.wait(timeout: timeout)) != nil else { return }
        if !poll.result(at: 0).isEmpty { bell.take() }
        if currentGoal != .run { return }
        for (entry, index) in watched.enumerated() where !poll.result(at: entry + 1).isEmpty {
            sources[index].handle(poll.result(at: entry + 1))
        }
        let now = SystemClock.monotonic()
        for source in sources { if let deadline = source.deadline(), deadline <= now { source.handle([]) } }
    }
}
