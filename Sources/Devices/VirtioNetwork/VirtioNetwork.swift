internal import GuestMemory
package import LinuxSystem
internal import Synchronization
package import SystemPackage
internal import Wire

/// A virtio network device (virtio 1.2 §5.1) on the queues of a tap. Its link is always up.
///
/// Each pair of queues has a thread of its own. A handover carries how many pairs the driver uses; packets wait in the tap, whose
/// settings are the kernel's to keep.
package final class VirtioNetwork: VirtioDevice {
    private struct Live {
        var features: VirtioFeatures = []
        var pairsInUse: UInt16 = 1
    }
    private struct Running {
        let transport: any VirtioTransport
        let pairs: [QueuePair]
        let threads: [DeviceThread]
        let doorbells: [QueueSource]
    }

    package let kind = VirtioKind.network
    package let features: VirtioFeatures
    package let queueSizes: [UInt16]
    private let taps: [SharedDescriptor]
    private let address: [UInt8]
    private let mtu: UInt16
    private let live = Mutex(Live())
    private let running: Mutex<Running?> = Mutex(nil)
    /// The tap may have other settings than the driver wants.
    private let hasNewSettings = Atomic<Bool>(false)

    /// - Parameters:
    ///   - taps: from custody, one for each queue pair, all of one interface: `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, with
    ///     `IFF_MULTI_QUEUE` if there are several, not blocking, with headers of 12 bytes.
    ///   - mac: six bytes.
    package init(taps: [SharedDescriptor], mac: [UInt8], mtu: UInt16) {
        precondition((1...32).contains(taps.count) && mac.count == 6, "a network device has 1 to 32 queue pairs and a MAC address")
        self.taps = taps
        address = mac
        self.mtu = mtu
        var features: VirtioFeatures = [
            .networkChecksum, .networkGuestChecksum, .networkMTU, .networkAddress, .networkGuestTCP4, .networkGuestTCP6, .networkHostTCP4,
            .networkHostTCP6, .networkMergeableBuffers, .networkStatus,
        ]
        var sizes = taps.flatMap { _ in [NetworkLimits.receiveQueue, NetworkLimits.transmitQueue] }
        if taps.count > 1 {
            features.formUnion([.networkControl, .networkQueuePairs])
            sizes.append(NetworkLimits.controlQueue)
        }
        self.features = features
        queueSizes = sizes
    }

    /// §5.1.4.
    package func configuration() -> [UInt8] {
        var writer = WireWriter()
        writer.raw(address)
        writer.u16(1)  // status: the link is up
        writer.u16(UInt16(taps.count))
        writer.u16(mtu)
        return writer.bytes
    }

    package func start(_ connection: VirtioConnection) throws(Errno) {
        var pairs: [QueuePair] = []
        var threads: [DeviceThread] = []
        var doorbells: [QueueSource] = []
        for (index, tap) in taps.enumerated() {
            let queues = connection.queues[(2 * index)...]
            let pair = QueuePair(tap, receive: queues[2 * index], transmit: queues[2 * index + 1], connection)
            var own = [
                QueueSource(queues[2 * index]) { [weak self] queue in
                    if self?.controlQueue == queue.index { return self?.serveControl(queue, connection) ?? false }
                    pair.receive()
                    return false
                },
                QueueSource(queues[2 * index + 1]) { _ in pair.transmit() },
            ]
            if index == 0, let control = connection.queues.last, connection.queues.count > 2 {
                own.append(QueueSource(control) { [weak self] in self?.serveControl($0, connection) ?? false })
            }
            let settings = index == 0 ? [TapSettings(self)] : []
            threads.append(try DeviceThread(name: "\(connection.name)/net\(index)", sources: settings + own + [pair]))
            pairs.append(pair)
            doorbells += own
        }
        for thread in threads { try thread.start() }
        let transport = connection.transport
        running.withLock { [pairs, threads, doorbells] in $0 = Running(transport: transport, pairs: pairs, threads: threads, doorbells: doorbells) }
    }

    /// The control queue comes after the pairs that are negotiated (§5.1.2).
    private var controlQueue: Int? {
        let features = live.withLock { $0.features }
        return features.contains(.networkControl) ? (features.contains(.networkQueuePairs) ? 2 * taps.count : 2) : nil
    }

    package func activate(_ features: VirtioFeatures) {
        live.withLock { $0 = Live(features: features) }
        for pair in current?.pairs ?? [] { pair.configure(features, mtu: mtu) }
        changeSettings()
    }

    package func reset() {
        live.withLock { $0 = Live() }
        guard let running = current else { return }
        for pair in running.pairs { pair.dropBuffers() }
        changeSettings()
        for thread in running.threads { thread.wake() }
    }

    package func hold() { for thread in current?.threads ?? [] { _ = thread.park(timeout: .zero) } }

    package func drain(until deadline: Int64) -> Bool {
        guard let running = current else { return true }
        for (thread, pair) in zip(running.threads, running.pairs) {
            guard thread.park(timeout: .nanoseconds(max(0, deadline - SystemClock.monotonic()))) else { return false }
            pair.giveBack()
        }
        return true
    }

    package func resume() {
        guard let running = current else { return }
        changeSettings()
        for doorbell in running.doorbells { doorbell.look() }
        for thread in running.threads { thread.run() }
    }

    package func finish() {
        for thread in current?.threads ?? [] { thread.finish() }
        running.withLock { $0 = nil }
    }

    package func state() -> VirtioNetworkState { VirtioNetworkState(pairsInUse: live.withLock { $0.pairsInUse }) }

    package func restore(_ state: VirtioNetworkState) {
        let count = UInt16(taps.count)
        live.withLock { $0.pairsInUse = min(state.pairsInUse, count) }
        if state.pairsInUse > count { current?.transport.fail("\(state.pairsInUse) queue pairs are in use, there are \(count)") }
    }

    private var current: Running? { running.withLock { $0 } }

    // Settings.

    private func changeSettings() {
        hasNewSettings.store(true, ordering: .sequentiallyConsistent)
        current?.threads[0].wake()
    }

    /// Tells the tap what the driver wants: which of its queues get packets, and what may be left undone in them. Often it is so already.
    ///
    /// On the first pair's thread: the kernel may take milliseconds over it.
    private func applySettings() {
        let live = live.withLock { $0 }
        guard let running = current else { return }
        let used = running.pairs.prefix(Int(live.pairsInUse))
        let unused = running.pairs.dropFirst(Int(live.pairsInUse))
        for pair in unused { pair.isInUse = false }
        if running.pairs.count > 1 {
            for pair in used { try? pair.tap.descriptor.attachTapQueue(true) }  // EINVAL: it is attached
            for pair in unused { try? pair.tap.descriptor.attachTapQueue(false) }
        }
        try? taps[0].descriptor.setTapOffloads(live.features.tapOffloads)  // fails only on what is no tap
        for pair in used { pair.isInUse = true }
        for doorbell in running.doorbells { doorbell.look() }
        for thread in running.threads { thread.wake() }
    }

    fileprivate var settingsDeadline: Int64? { hasNewSettings.load(ordering: .sequentiallyConsistent) ? 0 : nil }
    fileprivate func takeSettings() { if hasNewSettings.exchange(false, ordering: .sequentiallyConsistent) { applySettings() } }

    // The control queue (§5.1.6.5).

    private static let mostOfCommand = 64

    private func serveControl(_ queue: Virtqueue, _ connection: VirtioConnection) -> Bool {
        if queue.index != controlQueue { return false }
        return queue.serve(upTo: 16) { chain in
            if let last = chain.writable.last {
                let isDone = carryOut(connection.memory.gather(chain.readable, skipping: 0, upTo: Self.mostOfCommand))
                try? connection.memory.write(integer: UInt8(isDone ? 0 : 1), at: last.address + UInt64(last.count - 1))
            } else {
                connection.transport.fail("a network command without room for its answer")
            }
            queue.complete(chain.ticket, written: chain.writableBytes)
        }
    }

    /// Class, command, and what belongs to it. Of all there are, this device has one: how many pairs to use.
    private func carryOut(_ command: [UInt8]) -> Bool {
        guard command.count == 4, command[0] == 4, command[1] == 0 else { return false }
        let count = UInt16(command[2]) | UInt16(command[3]) << 8
        guard (1...UInt16(taps.count)).contains(count), live.withLock({ $0.features.contains(.networkQueuePairs) }) else { return false }
        live.withLock { $0.pairsInUse = count }
        changeSettings()
        takeSettings()
        return true
    }
}

/// Has a tap told of new settings, on the thread that watches this.
private final class TapSettings: EventSource {
    private weak let device: VirtioNetwork?
    init(_ device: VirtioNetwork) { self.device = device }
    func interest() -> (number: CInt, readiness: Readiness)? { nil }
    func deadline() -> Int64? { device?.settingsDeadline }
    func handle(_ readiness: Readiness) { device?.takeSettings() }
}
