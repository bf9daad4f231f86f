internal import GuestMemory
internal import LinuxSystem
internal import Synchronization
package import SystemPackage

/// A source of randomness (virtio 1.2 §5.4): fills the driver's buffers from the kernel's generator.
package final class VirtioEntropy: VirtioDevice {
    private struct Running {
        let thread: DeviceThread
        let source: QueueSource
    }

    package let kind = VirtioKind.entropy
    package let features: VirtioFeatures = []
    package let queueSizes: [UInt16] = [64]
    private let running = Mutex<Running?>(nil)
    private let delivered = Atomic<UInt64>(0)

    /// The most bytes for one buffer; the driver comes back for more.
    private static let portion = 4096
    /// Buffers filled before other work of the thread is looked at.
    private static let round = 16

    package init() {}

    package func configuration() -> [UInt8] { [] }

    package func start(_ connection: VirtioConnection) throws(Errno) {
        let memory = connection.memory
        let source = QueueSource(connection.queues[0]) { [weak self] in self?.serve($0, memory) ?? false }
        let thread = try DeviceThread(name: connection.name + "/rng", sources: [source])
        try thread.start()
        running.withLock { $0 = Running(thread: thread, source: source) }
    }

    private func serve(_ queue: Virtqueue, _ memory: GuestMemory) -> Bool {
        queue.serve(upTo: Self.round) { chain in
            let bytes = FileSystem.randomBytes(min(chain.writableBytes, Self.portion))
            let written = memory.fill(chain.writable, with: bytes)
            delivered.add(UInt64(written), ordering: .relaxed)
            queue.complete(chain.ticket, written: written)
        }
    }

    package func activate(_ features: VirtioFeatures) {}
    package func reset() {}

    package func hold() { _ = running.withLock { $0?.thread }?.park(timeout: .zero) }

    package func drain(until deadline: Int64) -> Bool {
        guard let thread = running.withLock({ $0?.thread }) else { return true }
        return thread.park(timeout: .nanoseconds(max(0, deadline - SystemClock.monotonic())))
    }

    package func resume() {
        guard let running = running.withLock({ $0 }) else { return }
        running.source.look()
        running.thread.run()
    }

    package func finish() { running.withLock { $0?.thread }?.finish() }

    package func state() -> VirtioEntropyState { VirtioEntropyState(delivered: delivered.load(ordering: .relaxed)) }
    package func restore(_ state: VirtioEntropyState) { delivered.store(state.delivered, ordering: .relaxed) }
}
