internal import GuestMemory
internal import Synchronization

/// A split virtqueue (virtio 1.2 §2.7), the device's side of it.
///
/// Rings are hostile: everything is fetched once and bounded, and what breaks the rules closes the queue and fails the device
/// (``VirtioTransport/fail(_:)``). Every chain popped is given back exactly once: by ``complete(_:written:)``, by ``push(_:written:)``
/// followed by ``publish()``, or by ``rewind(_:)``.
///
/// Any call may come on any thread, but chains are popped, rewound and pushed without being published by one thread at a time.
package final class Virtqueue: Sendable {
    /// Its number in the device.
    package let index: Int
    /// The largest size, a power of two.
    package let maximumSize: UInt16
    package let doorbell: Doorbell
    let memory: GuestMemory
    let ring = Mutex(SplitRing())
    private let transport = Mutex<(any VirtioTransport)?>(nil)

    /// - Parameter maximumSize: a power of two, at most 32768.
    init(index: Int, maximumSize: UInt16, memory: GuestMemory, doorbell: Doorbell) {
        self.index = index
        self.maximumSize = maximumSize
        self.memory = memory
        self.doorbell = doorbell
    }

    /// The next chain that the driver has made available; `nil` when there is none, or the queue is closed.
    package func pop() -> DescriptorChain? {
        var chain = DescriptorChain()
        return pop(into: &chain) ? chain : nil
    }

    /// The next chain, into a value whose memory is used again. `false` when there is none, or the queue is closed.
    package func pop(into chain: inout DescriptorChain) -> Bool { false }

    /// Gives the last `count` chains popped back to be popped again, of which none has been completed or pushed.
    package func rewind(_ count: Int) {}

    /// Returns a chain to the driver with the number of bytes written to it, and interrupts if the driver wants that.
    package func complete(_ ticket: VirtqueueTicket, written: Int) {
        push(ticket, written: written)
        publish()
    }

    /// Puts a chain into the used ring without showing it to the driver yet.
    package func push(_ ticket: VirtqueueTicket, written: Int) {}

    /// Shows the driver everything that was pushed, and interrupts if it wants that.
    package func publish() {}

    /// Whether a chain is available, without popping it.
    package var isEmpty: Bool { true }

    /// Tells the driver that its doorbell need not be rung: this side looks by itself. Only a hint.
    package func disableNotifications() {}

    /// Asks the driver to ring for the next chain. `true`: one has come meanwhile, for which nobody may ring any more; go on popping.
    package func enableNotifications() -> Bool { false }

    /// How many chains have been popped and not given back, those from before a reset included.
    package var inFlight: Int { 0 }
}

struct SplitRing {}
