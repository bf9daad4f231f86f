import GuestMemory
import LinuxSystem
import Synchronization
import SystemPackage

@testable import Devices

/// A transport that counts interrupts and remembers why the device failed.
final class RecordedTransport: VirtioTransport {
    private let record = Mutex<(interrupts: [Int: Int], changes: Int, fault: String?)>(([:], 0, nil))
    /// Changes with every interrupt.
    let interrupted = Futex()

    func usedBuffers(of queue: Virtqueue) {
        record.withLock { $0.interrupts[queue.index, default: 0] += 1 }
        interrupted.set(interrupted.value &+ 1)
    }
    func configurationChanged() { record.withLock { $0.changes += 1 } }
    func fail(_ reason: String) { record.withLock { if $0.fault == nil { $0.fault = reason } } }

    /// As after a reset of the device.
    func reset() { record.withLock { $0.fault = nil } }

    var hasFailed: Bool { fault != nil }
    var fault: String? { record.withLock { $0.fault } }
    var changes: Int { record.withLock { $0.changes } }
    func interrupts(of queue: Int) -> Int { record.withLock { $0.interrupts[queue] ?? 0 } }
}

/// The driver's side of one queue, in guest RAM from `base` on: rings first, then 4 KiB of room for each descriptor.
///
/// It keeps no order: a chain's head is the number of its first descriptor, and descriptors are given out round and round.
final class RingDriver {
    struct Buffer {
        let address: UInt64
        let count: Int
        let isWritable: Bool
    }

    let queue: Virtqueue
    let size: UInt16
    private let memory: GuestMemory
    private let base: UInt64
    private let usesEventIndex: Bool
    private var nextDescriptor: UInt16 = 0
    private(set) var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0

    /// Bytes of RAM that a queue of a size takes.
    static func room(size: UInt16) -> UInt64 { 4096 * 8 + 4096 * UInt64(size) }

    fileprivate init(_ queue: Virtqueue, memory: GuestMemory, base: UInt64, features: VirtioFeatures) {
        self.queue = queue
        self.memory = memory
        self.base = base
        size = queue.maximumSize
        usesEventIndex = features.contains(.eventIndex)
        precondition(size <= 1024, "the rings would not fit")
    }

    /// The same driver, which rings another worker's doorbell now.
    fileprivate init(_ queue: Virtqueue, following other: RingDriver) {
        self.queue = queue
        memory = other.memory
        base = other.base
        size = other.size
        usesEventIndex = other.usesEventIndex
        nextDescriptor = other.nextDescriptor
        nextAvailable = other.nextAvailable
        nextUsed = other.nextUsed
    }

    var descriptors: UInt64 { base }
    var available: UInt64 { base + 4096 * 4 }
    var used: UInt64 { base + 4096 * 5 }
    /// The room of a descriptor's own.
    func room(of descriptor: UInt16) -> UInt64 { base + 4096 * 8 + 4096 * UInt64(descriptor % size) }

    /// Makes a chain available. Its head.
    @discardableResult
    func add(_ buffers: [Buffer]) throws -> UInt16 {
        let head = nextDescriptor % size
        for (position, buffer) in buffers.enumerated() {
            let number = nextDescriptor % size
            let isLast = position == buffers.count - 1
            nextDescriptor &+= 1
            let entry = descriptors + 16 * UInt64(number)
            try memory.write(integer: buffer.address, at: entry)
            try memory.write(integer: UInt32(truncatingIfNeeded: buffer.count), at: entry + 8)
            try memory.write(integer: UInt16(isLast ? 0 : 1) | (buffer.isWritable ? 2 : 0), at: entry + 12)
            try memory.write(integer: nextDescriptor % size, at: entry + 14)
        }
        try memory.write(integer: head, at: available + 4 + 2 * UInt64(nextAvailable % size))
        nextAvailable &+= 1
        try memory.write(integer: nextAvailable, at: available + 2)
        return head
    }

    /// Makes a chain available whose first buffers hold `sending` and whose others have room for `receiving` bytes each.
    @discardableResult
    func add(sending: [[UInt8]], receiving: [Int] = []) throws -> (head: UInt16, rooms: [UInt64]) {
        var buffers: [Buffer] = []
        var rooms: [UInt64] = []
        var number = nextDescriptor
        for bytes in sending {
            try memory.write(bytes, at: room(of: number))
            buffers.append(Buffer(address: room(of: number), count: bytes.count, isWritable: false))
            number &+= 1
        }
        for count in receiving {
            buffers.append(Buffer(address: room(of: number), count: count, isWritable: true))
            rooms.append(room(of: number))
            number &+= 1
        }
        return (try add(buffers), rooms)
    }

    /// Rings as a driver does: only if it was asked to.
    func kick() { queue.doorbell.ring() }

    /// What the device has returned since last asked: heads and bytes written.
    func takeUsed() throws -> [(head: UInt16, written: Int)] {
        let end: UInt16 = try memory.read(at: used + 2)
        var elements: [(head: UInt16, written: Int)] = []
        while nextUsed != end {
            let place = used + 4 + 8 * UInt64(nextUsed % size)
            elements.append((UInt16(try memory.read(UInt32.self, at: place)), Int(try memory.read(UInt32.self, at: place + 4))))
            nextUsed &+= 1
        }
        if usesEventIndex { try memory.write(integer: nextUsed, at: available + 4 + 2 * UInt64(size)) }
        return elements
    }
}

/// A device with everything around it but a guest: RAM, open queues, and a driver for each of them.
final class VirtioBench<D: VirtioDevice> {
    let device: D
    let memory: GuestMemory
    let transport = RecordedTransport()
    let queues: [Virtqueue]
    let drivers: [RingDriver]
    /// RAM above the queues, for what a test likes.
    let spare: UInt64
    private let features: VirtioFeatures

    /// Started, open, and held.
    init(_ device: D, accepting features: VirtioFeatures? = nil, memory shared: GuestMemory? = nil) throws {
        self.device = device
        let features = (features ?? device.features).union([.version1, .eventIndex])
        let rooms = device.queueSizes.map { RingDriver.room(size: $0) }
        spare = rooms.reduce(0, +)
        let size = Int(spare) + 4 << 20
        let memory =
            if let shared { shared } else {
                GuestMemory(
                    GuestMemoryLayout(size: size),
                    mapping: try SharedMapping(of: MemoryDescriptor(name: "ram", size: size).descriptor, length: size))
            }
        self.memory = memory
        self.features = features
        let transport = transport
        queues = try device.queueSizes.enumerated().map { index, size in
            Virtqueue(index: index, maximumSize: size, memory: memory, doorbell: try Doorbell(), transport: transport)
        }
        drivers = queues.enumerated().map { index, queue in
            RingDriver(queue, memory: memory, base: rooms[..<index].reduce(0, +), features: features)
        }
        try device.start(VirtioConnection(queues: queues, transport: transport, memory: memory, name: "test"))
        open()
    }

    /// The same in the next worker: the device of another bench that is held, its queues, and its driver, which notices nothing. Started and held;
    /// the back end's own state is not restored yet.
    init(_ device: D, following other: VirtioBench<D>) throws {
        self.device = device
        memory = other.memory
        features = other.features
        spare = other.spare
        let memory = memory
        let transport = transport
        queues = try other.queues.map { old in
            let queue = Virtqueue(index: old.index, maximumSize: old.maximumSize, memory: memory, doorbell: try Doorbell(), transport: transport)
            queue.restore(old.state)
            return queue
        }
        drivers = zip(queues, other.drivers).map { RingDriver($0, following: $1) }
        try device.start(VirtioConnection(queues: queues, transport: transport, memory: memory, name: "test"))
        for queue in queues { queue.open(features) }
        device.activate(features)
    }

    deinit {
        device.hold()
        device.finish()
    }

    /// What the driver does up to DRIVER_OK.
    func open() {
        for (queue, driver) in zip(queues, drivers) {
            queue.configure { state in
                state.isEnabled = true
                state.descriptors = driver.descriptors
                state.available = driver.available
                state.used = driver.used
            }
            queue.open(features)
        }
        device.activate(features)
    }

    /// What the driver resets the device by; it has ended when nothing is in flight.
    func reset() {
        for queue in queues { queue.reset() }
        device.reset()
    }

    /// Waits until `condition` holds, at most 5 s.
    func wait(_ condition: () throws -> Bool) rethrows -> Bool {
        for _ in 0..<5000 {
            if try condition() { return true }
            SystemClock.sleep(.milliseconds(1))
        }
        return false
    }

    /// Waits for `count` chains to be returned on a queue.
    func used(_ count: Int, of queue: Int = 0) throws -> [(head: UInt16, written: Int)] {
        var elements: [(head: UInt16, written: Int)] = []
        _ = try wait {
            elements += try drivers[queue].takeUsed()
            return elements.count >= count || transport.hasFailed
        }
        return elements
    }
}
