package import GuestMemory
package import SystemPackage

/// What kind a virtio device is (virtio 1.2 §5).
package enum VirtioKind: UInt16, Sendable, CaseIterable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4
}

/// Feature bits (virtio 1.2 §6). Bits 0–23 are a device's own and declared with it.
package struct VirtioFeatures: OptionSet, Sendable, Hashable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let indirectDescriptors = VirtioFeatures(rawValue: 1 << 28)
    package static let eventIndex = VirtioFeatures(rawValue: 1 << 29)
    package static let version1 = VirtioFeatures(rawValue: 1 << 32)

    /// What the transport offers for every device.
    package static let transport: VirtioFeatures = [.indirectDescriptors, .eventIndex, .version1]
}

/// The back end of a virtio device: what makes it a disk or a network card. Everything about registers, negotiation and interrupts is
/// the transport's, everything about rings is ``Virtqueue``'s.
///
/// The queues are there from beginning to end. While the driver has not said DRIVER_OK, after a reset and after a fault they are closed:
/// `pop` gives nothing, and what is completed late goes nowhere. So a back end may look at its queues whenever it runs. It pops from a
/// queue on one thread at a time and completes on any.
///
/// It begins stopped. Its threads are started, parked, by ``start(_:)`` in *prepare* and ended by ``finish()``; nothing between starts
/// one. ``hold()`` and ``drain(until:)`` are *settle*, ``resume()`` is abort as well as grant. Calls come one at a time unless it says
/// otherwise.
package protocol VirtioDevice: AnyObject, Sendable {
    associatedtype State: DeviceState

    var kind: VirtioKind { get }
    /// The feature bits of its own that it offers. Fixed.
    var features: VirtioFeatures { get }
    /// The largest size of each of its queues, powers of two. Fixed.
    var queueSizes: [UInt16] { get }

    /// The configuration space as the driver reads it, little-endian. On any vCPU's thread, at any time; does not block.
    func configuration() -> [UInt8]
    /// The driver writes to the configuration space; what is not writable is ignored. On any vCPU's thread; does not block.
    func writeConfiguration(_ bytes: [UInt8], at offset: Int)

    /// Starts its threads, parked. Once, before anything else but ``configuration()``.
    func start(_ connection: VirtioConnection) throws(Errno)
    /// The driver has said DRIVER_OK: queues are open now, and the doorbells of all of them are rung next. In the incoming worker it comes before
    /// ``restore(_:)`` if the driver had said so, and nothing is rung. On a vCPU's thread or the session's, running or held; does not block.
    func activate(_ features: VirtioFeatures)
    /// The driver resets the device, whose queues are closed already: back to the state after power-on, at once. What is in flight may end
    /// later; the driver sees the reset end when every chain popped has been completed or given back. On a vCPU's thread; does not block.
    func reset()

    /// Stops popping chains and acting on its own. Does not wait: what is in flight goes on. Done twice it is done once.
    func hold()
    /// After ``hold()``: waits until every chain popped has been completed or given back, and no thread of its own touches guest RAM or a
    /// lent descriptor. `false` when `deadline` (CLOCK_MONOTONIC, nanoseconds) came first.
    func drain(until deadline: Int64) -> Bool
    /// Acts again, and looks at every queue as if its doorbell had been rung.
    func resume()
    /// Ends its threads. Only after ``hold()``.
    func finish()

    /// The state, held and drained and with every vCPU parked.
    func state() -> State
    /// Takes over a state, whole. Only while held.
    func restore(_ state: State)
}

extension VirtioDevice {
    package func writeConfiguration(_ bytes: [UInt8], at offset: Int) {}
}

/// What a back end is given when it starts.
package struct VirtioConnection: Sendable {
    /// One for each entry of ``VirtioDevice/queueSizes``.
    package let queues: [Virtqueue]
    package let transport: any VirtioTransport
    /// Guest RAM, in which all segments of chains lie.
    package let memory: GuestMemory
    /// The beginning of its threads' names, which have at most 15 bytes: machine and device number.
    package let name: String

    package init(queues: [Virtqueue], transport: any VirtioTransport, memory: GuestMemory, name: String) {
        self.queues = queues
        self.transport = transport
        self.memory = memory
        self.name = name
    }
}

/// The way from back end and queues to the driver. Every call may come on any thread and with a back end's lock held; none blocks.
package protocol VirtioTransport: AnyObject, Sendable {
    /// An interrupt for used buffers. Queues call it, back ends need not.
    func usedBuffers(of queue: Virtqueue)
    /// The configuration space reads differently now: a new generation and an interrupt.
    func configurationChanged()
    /// The driver has broken the rules where no answer is possible: all queues are closed, the device stops with DEVICE_NEEDS_RESET, and
    /// `reason` is in the log, once. Until the next reset only the first call counts.
    func fail(_ reason: String)
    /// Whether that has happened since the last reset.
    var hasFailed: Bool { get }
}
