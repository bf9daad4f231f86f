internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// The threads of a disk. Each takes a request from the queues, performs it and returns it, so that an idle disk answers without passing
/// anything on, and a slow one has as many requests in flight as it has threads.
///
/// A doorbell wakes one thread. Whoever takes a request and sees another waiting wakes the next one before performing its own.
final class DiskCrew: Sendable {
    /// Requests in flight at most.
    static let size = 8

    private struct Live {
        var isRunning = false
        var isFinished = false
        /// Threads that may hold a request, or are about to take one.
        var busy = 0
        /// A thread has been woken and has not come yet: it will look, nobody else need be woken.
        var isWaking = false
        /// The queue to look at first, so that none is forgotten over another.
        var next = 0
    }

    private let connection: VirtioConnection
    private let perform: @Sendable (BlockRequest) -> BlockStatus
    private let live = Mutex(Live())
    private let doorbells: SharedPoll
    /// Readable for ever once the threads are to end.
    private let end: EventDescriptor
    /// Changes when the last busy thread is done while they are held.
    private let rests = Futex()
    private let threads: Mutex<[SystemThread]> = Mutex([])

    /// - Parameter perform: called on any of the threads; may block as long as the storage does.
    init(_ connection: VirtioConnection, _ perform: @escaping @Sendable (BlockRequest) -> BlockStatus) throws(Errno) {
        self.connection = connection
        self.perform = perform
        doorbells = try SharedPoll()
        end = try EventDescriptor()
        for queue in connection.queues { try doorbells.add(queue.doorbell.number) }
        try doorbells.addForAll(end.descriptor.number)
    }

    func start() throws(Errno) {
        for number in 0..<Self.size {
            let thread = try SystemThread(name: "\(connection.name).\(number)") { [self] in loop() }
            threads.withLock { $0.append(thread) }
        }
    }

    func hold() { live.withLock { $0.isRunning = false } }

    func drain(until deadline: Int64) -> Bool {
        while true {
            let seen = rests.value
            if live.withLock({ $0.busy == 0 }) { return true }
            let left = deadline - SystemClock.monotonic()
            if left <= 0 { return false }
            rests.wait(while: seen, timeout: .nanoseconds(left))
        }
    }

    func resume() {
        live.withLock { $0.isRunning = true }
        wake()
    }

    /// A thread that storage holds is left to it; it does nothing more when it comes back.
    func finish() {
        live.withLock { $0.isFinished = true }
        end.signal()
        let ended = drain(until: SystemClock.monotonic() + 1_000_000_000)
        threads.withLock { threads in
            for thread in threads { if ended { thread.join() } else { thread.detach() } }
            threads = []
        }
    }

    private func wake() { connection.queues[0].doorbell.ring() }

    private func loop() {
        var request = BlockRequest(connection.memory)
        while arrive() {
            while let queue = take(&request) { carryOut(&request, of: queue) }
            doorbells.wait()
        }
    }

    /// This thread looks for work now; `false` when there will be no more.
    private func arrive() -> Bool {
        live.withLock { live in
            live.isWaking = false
            if live.isFinished { return false }
            live.busy += 1
            return true
        }
    }

    /// Pops the next request of any queue. When there is none, this thread is no longer busy.
    private func take(_ request: inout BlockRequest) -> Virtqueue? {
        let (queue, wakesAnother, isLast) = live.withLock { live -> (Virtqueue?, Bool, Bool) in
            if live.isRunning, let queue = pop(&request.chain, &live) {
                let wakesAnother = hasMore(queue) && !live.isWaking && live.busy < Self.size
                if wakesAnother { live.isWaking = true }
                return (queue, wakesAnother, false)
            }
            live.busy -= 1
            return (nil, false, live.busy == 0 && !live.isRunning)
        }
        if wakesAnother { wake() }
        if isLast { rests.set(rests.value &+ 1) }
        return queue
    }

    private func pop(_ chain: inout DescriptorChain, _ live: inout Live) -> Virtqueue? {
        let queues = connection.queues
        repeat {
            for offset in queues.indices {
                let index = (live.next + offset) % queues.count
                if queues[index].pop(into: &chain) {
                    live.next = (index + 1) % queues.count
                    return queues[index]
                }
            }
            // Nobody looks any more, so the driver has to ring.
        } while queues.count { $0.enableNotifications() } > 0
        return nil
    }

    /// Whether a request waits that this thread, about to perform the one it has popped from `queue`, leaves to others.
    private func hasMore(_ queue: Virtqueue) -> Bool {
        if !queue.isEmpty {
            queue.disableNotifications()
            return true
        }
        return queue.enableNotifications() || connection.queues.contains { !$0.isEmpty }
    }

    private func carryOut(_ request: inout BlockRequest, of queue: Virtqueue) {
        guard request.parse() else {
            connection.transport.fail("a disk request without a header or without room for its status")
            queue.complete(request.chain.ticket, written: 0)
            return
        }
        let status = perform(request)
        queue.complete(request.chain.ticket, written: request.end(status))
    }
}
