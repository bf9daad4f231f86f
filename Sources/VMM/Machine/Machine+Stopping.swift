internal import KVM
internal import LinuxSystem
internal import Synchronization

extension Machine {
    /// What is done with vCPUs that stop, each on the thread of a vCPU: the way from the last guest instruction to a checkpoint needs nobody
    /// to be woken.
    struct Stopping: Sendable {
        /// For each, on its own thread, as soon as it is out of the guest; with whether it is to do then what it can. Returns whether any thread may do the rest.
        let beginning: @Sendable (VCPUThread, Int, Bool) throws(VMMError) -> Bool
        /// Once, when the last one is out of the guest.
        let whenAllHaveStopped: @Sendable () throws(VMMError) -> Void
        /// For each, after that.
        let onEach: @Sendable (VCPUThread, Int) throws(VMMError) -> Void
        /// Once, after all of that. Returns whether another worker goes on: then nobody hurries to know.
        let whenAllAreDone: @Sendable () throws(VMMError) -> Bool
    }

    /// Parks every vCPU and does what `stopping` says. When that fails, or a vCPU does not leave the guest within `timeout`, they run again.
    /// Dropping the result runs them again, too.
    func stop(timeout: Duration, _ stopping: Stopping) throws(VMMError) -> ParkedVCPUs {
        let stop = begin(stopping, glance: min(rareGlance, timeout / 4), watching: hasCPUForEach ? moment : .zero)
        // Not before each has been told to leave the guest; from now on the incoming worker, where it needs this CPU, is not interrupted to see whether all is
        // done.
        if !hasCPUForEach { SystemThread.setEagerness(.patient) }
        defer { SystemThread.setEagerness(.ordinary) }
        if !stop.done.wait(timeout: timeout), stop.giveUp() {
            throw late(within: timeout)
        }
        let parked = ParkedVCPUs(self)
        // However long: what is under way may end in a freeze, after which these vCPUs may not run. Whoever never ends is killed.
        while !stop.done.wait(timeout: Self.patience) {}
        if let failure = stop.failure { throw failure }
        return parked
    }

    /// The same on a machine that has never run: whatever happens, it does not run now either. There is no hurry: its threads share the CPUs
    /// with a guest that runs, and how long preparing may take is the supervisor's business.
    func rehearse(_ stopping: Stopping) throws(VMMError) {
        let stop = begin(stopping)
        guard stop.done.wait(timeout: .seconds(60)) else { throw VMMError("a vCPU's thread did not finish its work") }
        if let failure = stop.failure { throw failure }
    }

    /// Has each vCPU's thread leave the guest, do what it will do when it is stopped, and go on: seconds after it was last needed, code and
    /// memory have gone from a processor's caches, and fetching them takes longer than the work. No vCPU waits for another one. Whoever does
    /// not come in time is not waited for either. Whether all came.
    func practise(_ stopping: Stopping, within limit: Duration) throws(VMMError) -> Bool {
        let threads = threads
        let began = SystemClock.monotonic()
        let stop = Stop(of: threads.count, isOpen: true, glance: nil)
        for (index, thread) in threads.enumerated() {
            thread.interrupt { _ in
                stop.finish(stopping) { () throws(VMMError) in
                    _ = try stopping.beginning(thread, index, true)
                    try stopping.onEach(thread, index)
                }
            }
        }
        if !stop.done.wait(timeout: limit), stop.abandon() { return false }
        while !stop.done.wait(timeout: Self.patience) {}
        if let failure = stop.failure { throw failure }
        notePractice(since: began)
        return true
    }

    /// On a slow host a thread that has left the guest tells another one to, since that takes as long as leaving does, and begins before the others have left.
    /// What is left then is done by the last one, with those that are still awake or, where vCPUs share CPUs, those that can run beside it. Everybody else
    /// is done: waking takes longer than the work.
    ///
    /// - Parameters:
    ///   - glance: how often the caller looks whether it is done; `nil`: it is woken.
    ///   - watching: how long each thread stays awake where it waits for others.
    private func begin(_ stopping: Stopping, glance: Duration? = nil, watching: Duration = .zero) -> Stop {
        let threads = threads
        let stop = Stop(of: threads.count, glance: glance, watching: watching)
        let claims = threads.map { _ in Claim() }
        let waiting = hasCPUForEach ? [] : crew
        let isEarly = isSlow
        let finish: @Sendable (Int) -> Void = { index in
            stop.finish(stopping) { () throws(VMMError) in try stopping.onEach(threads[index], index) }
        }
        let hasLeft = threads.map { _ in Claim() }
        let told = Atomic(0)
        let tellNext: @Sendable () -> Bool = {
            let next = told.add(1, ordering: .relaxed).oldValue
            if next < threads.count, !hasLeft[next].isTaken { threads[next].rouse() }
            return next < threads.count
        }
        for (index, thread) in threads.enumerated() {
            thread.prepareToPark { _ in
                _ = hasLeft[index].take()
                let isEarly = isEarly && !stop.isAbandoned
                if isEarly { _ = tellNext() }
                let isForAny = stop.begin { () throws(VMMError) in try stopping.beginning(thread, index, isEarly) }
                if !isForAny { _ = claims[index].take() }
                guard stop.arrive(waits: !isForAny || waiting.contains(index), stopping.whenAllHaveStopped) else { return }
                if !isForAny { finish(index) }
                for offset in claims.indices {
                    let other = (index + offset) % claims.count
                    if claims[other].take() { finish(other) }
                }
                stop.awaitEnd()
            }
        }
        while tellNext() {}
        return stop
    }

    /// How long anything may take that a parked vCPU's thread does.
    static let patience = Duration.seconds(5)

    /// The vCPUs run again, since one of them did not leave the guest in time.
    func late(within timeout: Duration) -> VMMError {
        let late = threads.filter { $0.state == .running }.map { String($0.vcpu.index) }
        run()
        // None is late any more if the last one came just now.
        return VMMError("\(late.isEmpty ? "a vCPU" : "vCPU " + late.joined(separator: ", ")) did not leave the guest within \(timeout)")
    }
}

/// One stop of several vCPUs: what concerns all of them is done by the last one at each point.
private final class Stop: Sendable {
    private enum Gate {
        static let closed: UInt32 = 0
        static let open: UInt32 = 1
        /// Nobody waits for this any more.
        static let abandoned: UInt32 = 2
        /// All have done their own; the last one does what is left.
        static let ending: UInt32 = 3
    }

    private let running: Atomic<Int>
    private let unfinished: Atomic<Int>
    private let decision: Atomic<UInt32>
    private let gate = Futex(Gate.closed)
    private let failures = FailureBox()
    /// How long a vCPU's thread watches for the others.
    private let watching: Duration
    /// Opened when the last one is done.
    let done: Latch

    /// `isOpen`: nobody waits for others.
    init(of count: Int, isOpen: Bool = false, glance: Duration?, watching: Duration = .zero) {
        self.watching = watching
        decision = Atomic(isOpen ? Gate.open : Gate.closed)
        running = Atomic(count)
        unfinished = Atomic(count)
        done = Latch(glance: glance)
        done.close(for: 1)
    }

    /// The first thing that went wrong.
    var failure: VMMError? { failures.value }

    /// Does what a vCPU begins with, and says what that returns; `false` where it has failed.
    func begin(_ own: () throws(VMMError) -> Bool) -> Bool {
        var result = false
        failures.catching { () throws(VMMError) in result = try own() }
        return result
    }

    /// A vCPU has stopped. Returns whether all have, and the last of them has done `whenAllHaveStopped`; `false` when it was given up.
    ///
    /// - Parameter waits: for the others, however long. Otherwise `false` is returned, too, when they take longer than this thread stays awake for.
    func arrive(waits: Bool, _ whenAllHaveStopped: () throws(VMMError) -> Void) -> Bool {
        let missing = running.subtract(1, ordering: .sequentiallyConsistent).newValue
        if missing == 0 {
            guard decide(Gate.closed, Gate.open) else { return false }
            failures.catching(whenAllHaveStopped)
            gate.set(Gate.open)
            return true
        }
        _ = gate.watch(while: Gate.closed, for: watching)
        while waits, gate.value == Gate.closed { gate.wait(while: Gate.closed) }
        return gate.value == Gate.open
    }

    /// Does a vCPU's `own`, and when it was the last one's, what is left of `stopping`, unless something has failed.
    func finish(_ stopping: Machine.Stopping, _ own: () throws(VMMError) -> Void) {
        guard decision.load(ordering: .sequentiallyConsistent) == Gate.open else { return }
        if failure == nil { failures.catching(own) }
        guard unfinished.subtract(1, ordering: .sequentiallyConsistent).newValue == 0, decide(Gate.open, Gate.ending) else { return }
        var isAwaited = false
        if failure == nil { failures.catching { () throws(VMMError) in isAwaited = try stopping.whenAllAreDone() } }
        done.arrive(quietly: isAwaited)
    }

    /// The incoming worker's first thread is to run on one of these CPUs next, and waking it takes three times as long where the CPU is idle.
    func awaitEnd() { _ = done.isOpen(watching: watching) }

    /// Whether this was given up: then the vCPUs run.
    var isAbandoned: Bool { decision.load(ordering: .sequentiallyConsistent) == Gate.abandoned }

    /// `false`: too late, all have stopped.
    func giveUp() -> Bool {
        guard decide(Gate.closed, Gate.abandoned) else { return false }
        gate.set(Gate.abandoned)
        return true
    }

    /// Of an open one: what a vCPU does late concerns nobody but itself. `false`: too late, the last one is at its end.
    func abandon() -> Bool { decide(Gate.open, Gate.abandoned) }

    private func decide(_ from: UInt32, _ value: UInt32) -> Bool {
        decision.compareExchange(expected: from, desired: value, ordering: .sequentiallyConsistent).exchanged
    }
}

/// The first of several failures on several threads.
final class FailureBox: Sendable {
    private let first = Mutex<VMMError?>(nil)

    var value: VMMError? { first.withLock { $0 } }

    /// Does `body` and keeps what it throws.
    func catching(_ body: () throws(VMMError) -> Void) {
        do throws(VMMError) { try body() } catch { first.withLock { if $0 == nil { $0 = error } } }
    }
}
