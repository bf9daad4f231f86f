internal import GuestMemory
internal import Synchronization

/// A split virtqueue (virtio 1.2 §2.7), the device's side of it.
///
/// Rings are hostile: everything is fetched once and bounded, and what breaks the rules fails the device
/// (``VirtioTransport/fail(_:)``), whose queues are closed then. Every chain popped is given back exactly once: by
/// ``complete(_:written:)``, by ``push(_:written:)`` and ``publish()``, or by ``rewind(_:)``.
///
/// Any call may come on any thread, but chains are popped and rewound by one thread at a time.
package final class Virtqueue: Sendable {
    private struct Live {
        var configuration = VirtqueueState()
        /// There while the queue is open.
        var ring: SplitRing?
        /// Counts resets: what is completed for an earlier life goes nowhere.
        var life: UInt32 = 0
        /// Chains of earlier lives that have not been given back.
        var stale = 0
    }

    /// Its number in the device.
    package let index: Int
    /// The largest size, a power of two.
    package let maximumSize: UInt16
    package let doorbell: Doorbell
    private let memory: GuestMemory
    private let transport: any VirtioTransport
    private let live: Mutex<Live>

    /// - Parameter maximumSize: a power of two, at most 32768.
    init(index: Int, maximumSize: UInt16, memory: GuestMemory, doorbell: Doorbell, transport: any VirtioTransport) {
        self.index = index
        self.maximumSize = maximumSize
        self.memory = memory
        self.doorbell = doorbell
        self.transport = transport
        var live = Live()
        live.configuration.size = maximumSize
        self.live = Mutex(live)
    }

    // For back ends.

    /// How many descriptors the driver has given it.
    package var size: UInt16 { live.withLock { $0.configuration.size } }

    /// The next chain that the driver has made available; `nil` when there is none, or the queue is closed.
    package func pop() -> DescriptorChain? {
        var chain = DescriptorChain()
        return pop(into: &chain) ? chain : nil
    }

    /// The next chain, into a value whose memory is used again. `false` when there is none, or the queue is closed.
    package func pop(into chain: inout DescriptorChain) -> Bool {
        if transport.hasFailed { return false }
        do throws(RingFault) {
            return try live.withLock { live throws(RingFault) in try live.ring?.pop(into: &chain, life: live.life) ?? false }
        } catch {
            transport.fail("queue \(index): \(error.reason)")
            return false
        }
    }

    /// Gives the last `count` chains popped back to be popped again, of which none has been completed or pushed. `ticket`: one of theirs.
    package func rewind(_ count: Int, of ticket: VirtqueueTicket) {
        live.withLock { live in
            if ticket.life == live.life { live.ring?.rewind(count) } else { live.stale = max(0, live.stale - count) }
        }
    }

    /// Returns a chain to the driver with the number of bytes written to it, and interrupts if the driver wants that.
    package func complete(_ ticket: VirtqueueTicket, written: Int) {
        push(ticket, written: written)
        publish()
    }

    /// Puts a chain into the used ring without showing it to the driver yet.
    package func push(_ ticket: VirtqueueTicket, written: Int) {
        live.withLock { live in
            if ticket.life == live.life {
                live.ring?.push(head: ticket.head, written: written)
            } else {
                live.stale = max(0, live.stale - 1)
            }
        }
    }

    /// Shows the driver everything that was pushed, and interrupts if it wants that.
    package func publish() {
        if live.withLock({ $0.ring?.publish() ?? false }), !transport.hasFailed { transport.usedBuffers(of: self) }
    }

    /// Whether there is nothing to pop.
    package var isEmpty: Bool { transport.hasFailed || live.withLock { $0.ring?.isEmpty ?? true } }

    /// Tells the driver that its doorbell need not be rung: this side looks by itself. Only a hint.
    package func disableNotifications() { live.withLock { $0.ring?.disableNotifications() } }

    /// Asks the driver to ring for the next chain. `true`: one has come meanwhile, for which nobody may ring any more; go on popping.
    package func enableNotifications() -> Bool {
        live.withLock { $0.ring?.enableNotifications() ?? false } && !transport.hasFailed
    }

    /// How many chains have been popped and not given back, those from before a reset included.
    package var inFlight: Int { live.withLock { $0.stale + ($0.ring?.inFlight ?? 0) } }

    // For the transport.

    /// What the driver has set, and how far both sides have come.
    var state: VirtqueueState {
        live.withLock { live in
            var state = live.configuration
            guard let ring = live.ring else { return state }
            state.nextAvailable = ring.nextAvailable
            state.nextUsed = ring.published
            state.signalled = ring.signalled
            return state
        }
    }

    /// Takes a setting of the driver's, while the queue is closed.
    func configure(_ change: (inout VirtqueueState) -> Void) { live.withLock { change(&$0.configuration) } }

    /// The MSI-X vector for used buffers.
    var vector: UInt16 { live.withLock { $0.configuration.vector } }

    /// Opens the queue if the driver has enabled it.
    func open(_ features: VirtioFeatures) {
        do throws(RingFault) {
            try live.withLock { live throws(RingFault) in
                guard live.configuration.isEnabled, live.ring == nil else { return }
                live.ring = try SplitRing(live.configuration, features: features, memory: memory)
            }
        } catch {
            transport.fail("queue \(index): \(error.reason)")
        }
    }

    /// Closes it and forgets what the driver has set.
    func reset() {
        live.withLock { live in
            live.stale += live.ring?.inFlight ?? 0
            live.ring = nil
            live.life &+= 1
            live.configuration = VirtqueueState()
            live.configuration.size = maximumSize
        }
    }

    /// Takes over a state; open it afterwards if it was open. Nothing is in flight.
    func restore(_ state: VirtqueueState) {
        reset()
        live.withLock { $0.configuration = state }
    }
}
