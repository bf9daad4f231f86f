internal import Synchronization

/// The way from a device's queues and back end to its driver, by MSI-X. Without MSI-X there is only the ISR register to be polled.
final class VirtioInterrupts: VirtioTransport {
    private let messages: MSIXTable
    private let log: @Sendable (String) -> Void
    private let vector = Atomic<UInt16>(.max)
    private let changes = Atomic<UInt8>(0)
    private let status = Atomic<UInt8>(0)
    private let failed = Atomic<Bool>(false)

    private enum Cause {
        static let queue: UInt8 = 1
        static let configuration: UInt8 = 2
    }

    /// - Parameter log: takes the one line about a device that failed.
    init(_ messages: MSIXTable, log: @escaping @Sendable (String) -> Void) {
        self.messages = messages
        self.log = log
    }

    func usedBuffers(of queue: Virtqueue) { interrupt(queue.vector, Cause.queue) }

    func configurationChanged() {
        changes.add(1, ordering: .relaxed)
        interrupt(configurationVector, Cause.configuration)
    }

    func fail(_ reason: String) {
        if failed.exchange(true, ordering: .acquiringAndReleasing) { return }
        log(reason)
        interrupt(configurationVector, Cause.configuration)
    }

    var hasFailed: Bool { failed.load(ordering: .acquiring) }

    private func interrupt(_ vector: UInt16, _ cause: UInt8) {
        if messages.isEnabled { messages.signal(Int(vector)) } else { status.bitwiseOr(cause, ordering: .relaxed) }
    }

    // Registers.

    /// 0xFFFF for none, as after an attempt to set one that does not exist (§4.1.5.1.2).
    var configurationVector: UInt16 {
        get { vector.load(ordering: .relaxed) }
        set { vector.store(existing(newValue), ordering: .relaxed) }
    }

    /// The vector, or none if it does not exist.
    func existing(_ vector: UInt16) -> UInt16 { Int(vector) < messages.count ? vector : .max }

    var generation: UInt8 { changes.load(ordering: .relaxed) }

    /// The ISR register, which reading clears.
    func takeStatus() -> UInt8 { status.exchange(0, ordering: .relaxed) }

    /// The ISR register as it is.
    var interruptStatus: UInt8 { status.load(ordering: .relaxed) }

    func reset() {
        vector.store(.max, ordering: .relaxed)
        status.store(0, ordering: .relaxed)
        failed.store(false, ordering: .releasing)
    }

    func restore(_ state: VirtioState) {
        vector.store(state.configurationVector, ordering: .relaxed)
        changes.store(state.generation, ordering: .relaxed)
        status.store(state.interruptStatus, ordering: .relaxed)
        failed.store(state.hasFailed, ordering: .releasing)
    }
}
