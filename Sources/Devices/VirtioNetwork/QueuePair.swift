internal import GuestMemory
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// A receive and a transmit queue and the tap's queue behind them, on a thread of their own.
///
/// A packet moves with one call of the kernel between the tap and the guest's buffers. So at every moment it is in the tap, or in the
/// ring, or on the network: a handover finds none half moved, and has none to carry.
final class QueuePair: Sendable {
    private struct Live {
        var buffers: ReceiveBuffers
        var chain = DescriptorChain()
        var frame: GuestVector
        /// The driver has to give buffers before packets can be taken.
        var isStarved = true
        /// When a driver that has given some, but none for long packets, will have had time enough.
        var settlesForLess: Int64?
        /// The tap took no packet when last asked.
        var isBlocked = false
        /// The tap is gone.
        var isBroken = false
    }

    /// How long a packet waits for a driver that gives too little room for the longest, in nanoseconds.
    private static let patience: Int64 = 100_000_000

    let tap: SharedDescriptor
    private let receiveQueue: Virtqueue
    private let transmitQueue: Virtqueue
    private let transport: any VirtioTransport
    private let live: Mutex<Live>
    private let inUse = Atomic<Bool>(false)
    private let givesBack = Atomic<Bool>(false)

    init(_ tap: SharedDescriptor, receive: Virtqueue, transmit: Virtqueue, _ connection: VirtioConnection) {
        self.tap = tap
        receiveQueue = receive
        transmitQueue = transmit
        transport = connection.transport
        live = Mutex(Live(buffers: ReceiveBuffers(receive, connection.memory), frame: GuestVector(connection.memory, capacity: 64)))
    }

    /// The driver is there, and has accepted `features`.
    func configure(_ features: VirtioFeatures, mtu: UInt16) {
        let takesSegments = !features.tapOffloads.isDisjoint(with: [.tcp4, .tcp6])
        let wanted = takesSegments ? NetworkLimits.packet : NetworkLimits.header + NetworkLimits.framing + Int(mtu)
        live.withLock { live in
            live.buffers.configure(wanted: wanted, isMergeable: features.contains(.networkMergeableBuffers))
            live.isBroken = false
        }
    }

    /// Whether the tap's queue is attached and the driver uses the pair: if not, it is left alone.
    var isInUse: Bool {
        get { inUse.load(ordering: .sequentiallyConsistent) }
        set { inUse.store(newValue, ordering: .sequentiallyConsistent) }
    }

    /// The driver has taken its buffers away: what was popped goes back the next time the thread comes round.
    func dropBuffers() { givesBack.store(true, ordering: .sequentiallyConsistent) }

    /// Gives back what was popped ahead.
    func giveBack() {
        live.withLock { live in
            live.buffers.giveBack()
            live.isStarved = true
            live.settlesForLess = nil
        }
    }

    /// Moves packets from the tap to the driver until one of them has no more. What remains keeps the tap readable.
    func receive(settlingForLess: Bool = false) {
        live.withLock { live in
            live.isStarved = true
            var settles = settlingForLess
            if settles { live.settlesForLess = nil }
            defer { receiveQueue.publish() }
            for _ in 0..<NetworkLimits.batch {
                if transport.hasFailed || live.isBroken || !isInUse { return }
                switch live.buffers.fill() {
                case .anyPacket: live.settlesForLess = nil
                case .shortPackets where settles: settles = false
                case .shortPackets:
                    live.settlesForLess = live.settlesForLess ?? SystemClock.monotonic() + Self.patience
                    return
                case .nothing: return
                case nil: return transport.fail("a receive buffer without room")
                }
                do throws(Errno) { try live.buffers.receive(from: tap.descriptor) } catch {
                    live.isStarved = false
                    if error != .resourceTemporarilyUnavailable && isInUse { breakDown(error, &live) }
                    return
                }
            }
            live.isStarved = false
        }
    }

    private func breakDown(_ error: Errno, _ live: inout Live) {
        live.isBroken = true
        writeToStandardError("baton-vmm: reading a tap: \(error); its packets do not reach the guest any more")
    }

    /// Moves packets from the driver to the tap; `true` when there may be more. What the tap refuses is lost, as on a wire.
    func transmit() -> Bool {
        live.withLock { live in
            live.isBlocked = false
            defer { transmitQueue.publish() }
            transmitQueue.disableNotifications()
            for _ in 0..<NetworkLimits.batch {
                while !transmitQueue.pop(into: &live.chain) { if !transmitQueue.enableNotifications() { return false } }
                live.frame.removeAll()
                for segment in live.chain.readable { try? live.frame.append(segment.address, segment.count) }  // RAM, as the queue has found
                if live.frame.count <= NetworkLimits.packet {
                    do throws(Errno) { _ = try live.frame.send(to: tap.descriptor) } catch {
                        if error == .resourceTemporarilyUnavailable {
                            transmitQueue.rewind(1, of: live.chain.ticket)
                            live.isBlocked = true
                            return false
                        }
                    }
                }
                transmitQueue.push(live.chain.ticket, written: 0)
            }
            return true
        }
    }
}

extension QueuePair: EventSource {
    func interest() -> (number: CInt, readiness: Readiness)? {
        live.withLock { live in
            guard isInUse, !live.isBroken else { return nil }
            var readiness: Readiness = []
            if !live.isStarved { readiness.insert(.readable) }
            if live.isBlocked { readiness.insert(.writable) }
            return readiness.isEmpty ? nil : (tap.number, readiness)
        }
    }

    func deadline() -> Int64? {
        givesBack.load(ordering: .sequentiallyConsistent) ? 0 : live.withLock { $0.settlesForLess }
    }

    func handle(_ readiness: Readiness) {
        if givesBack.exchange(false, ordering: .sequentiallyConsistent) {
            giveBack()
            receive()
        }
        if readiness.isEmpty, let end = live.withLock({ $0.settlesForLess }), end <= SystemClock.monotonic() {
            receive(settlingForLess: true)
        }
        if !readiness.isDisjoint(with: [.readable, .failed, .hungUp]) { receive() }
        if !readiness.isDisjoint(with: [.writable, .failed, .hungUp]), transmit() { transmitQueue.doorbell.ring() }
    }
}
