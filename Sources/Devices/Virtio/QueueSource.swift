internal import GuestMemory
internal import LinuxSystem
internal import Synchronization

/// A queue served on a ``DeviceThread``: whenever its doorbell has been rung, and when somebody says so.
final class QueueSource: EventSource {
    private let queue: Virtqueue
    private let serve: @Sendable (Virtqueue) -> Bool
    private let isDue = Atomic<Bool>(false)

    /// - Parameter serve: takes what is there, but not for long; `true` when there is more.
    init(_ queue: Virtqueue, _ serve: @escaping @Sendable (Virtqueue) -> Bool) {
        self.queue = queue
        self.serve = serve
    }

    /// Serves the queue the next time the thread comes round, rung or not.
    func look() { isDue.store(true, ordering: .releasing) }

    func interest() -> (number: CInt, readiness: Readiness)? { (queue.doorbell.number, .readable) }

    func deadline() -> Int64? { isDue.load(ordering: .acquiring) ? 0 : nil }

    func handle(_ readiness: Readiness) {
        if !readiness.isEmpty { queue.doorbell.take() }
        isDue.store(false, ordering: .sequentiallyConsistent)
        if serve(queue) { look() }
    }
}

extension Virtqueue {
    /// Pops and handles chains until none is left, asking for the doorbell only then, but at most `limit`. `true`: there may be more.
    func serve(upTo limit: Int, _ body: (DescriptorChain) -> Void) -> Bool {
        var chain = DescriptorChain()
        disableNotifications()
        for _ in 0..<limit {
            while !pop(into: &chain) { if !enableNotifications() { return false } }
            body(chain)
        }
        return true
    }
}

extension GuestMemory {
    /// Copies as much of `bytes` into segments as they hold; how much that was. Segments of a chain lie in RAM.
    func fill(_ segments: ArraySlice<DescriptorChain.Segment>, with bytes: [UInt8]) -> Int {
        var done = 0
        for segment in segments where done < bytes.count {
            let count = min(segment.count, bytes.count - done)
            try? write(bytes.span.extracting(done..<done + count), at: segment.address)
            done += count
        }
        return done
    }

    /// Copies `count` bytes out of segments after passing over `skipped`; fewer if there are no more.
    func gather(_ segments: ArraySlice<DescriptorChain.Segment>, skipping skipped: Int, upTo count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        var skipped = skipped
        for segment in segments where bytes.count < count {
            let start = min(skipped, segment.count)
            skipped -= start
            let part = min(segment.count - start, count - bytes.count)
            if part > 0, let read = try? read(at: segment.address + UInt64(start), count: part) { bytes += read }
        }
        return bytes
    }
}
