internal import GuestMemory

/// Why a queue is closed for good: what the driver did, in words for its log.
struct RingFault: Error, Equatable {
    let reason: String
}

/// The rings of a queue that is open, and where this side is in them (virtio 1.2 §2.7). One thread at a time.
///
/// Each field is fetched once. Positions in the windows come from indices that were reduced to the size or compared with it.
struct SplitRing {
    let size: UInt16
    let usesEventIndex: Bool
    let allowsIndirect: Bool
    private let layout: GuestMemoryLayout
    private let memory: GuestMemory
    private let table: GuestWindow
    private let available: GuestWindow
    private let used: GuestWindow
    /// Index of the next chain to pop.
    private(set) var nextAvailable: UInt16
    /// Index of the next element to push, and how far the driver has been shown.
    private(set) var nextUsed: UInt16
    private(set) var published: UInt16
    /// ``published`` when it was last decided whether to interrupt.
    private(set) var signalled: UInt16
    private(set) var inFlight = 0

    private enum Flag {
        static let next: UInt16 = 1
        static let write: UInt16 = 2
        static let indirect: UInt16 = 4
    }

    /// Opens the rings of a configuration; refuses what does not lie in RAM as it must.
    init(_ configuration: VirtqueueState, features: VirtioFeatures, memory: GuestMemory) throws(RingFault) {
        let size = configuration.size
        guard size > 0, size & (size - 1) == 0 else { throw RingFault(reason: "its size is \(size)") }
        self.size = size
        table = try Self.window("descriptor table", configuration.descriptors, 16 * Int(size), alignment: 16, memory)
        available = try Self.window("available ring", configuration.available, 6 + 2 * Int(size), alignment: 2, memory)
        used = try Self.window("used ring", configuration.used, 6 + 8 * Int(size), alignment: 4, memory)
        usesEventIndex = features.contains(.eventIndex)
        allowsIndirect = features.contains(.indirectDescriptors)
        layout = memory.layout
        self.memory = memory
        nextAvailable = configuration.nextAvailable
        nextUsed = configuration.nextUsed
        published = configuration.nextUsed
        signalled = configuration.signalled
    }

    private static func window(
        _ name: String, _ address: UInt64, _ count: Int, alignment: UInt64, _ memory: GuestMemory
    ) throws(RingFault) -> GuestWindow {
        guard address % alignment == 0, let window = try? memory.window(at: address, count: count) else {
            throw RingFault(reason: "its \(name) of \(count) bytes at \(hexadecimal(address)) is not in RAM or not aligned")
        }
        return window
    }

    /// Whether no chain is available. An index that jumped counts as something to pop, which then faults.
    var isEmpty: Bool { available.load16(at: 2) == nextAvailable }

    /// The next chain; `false` when there is none.
    mutating func pop(into chain: inout DescriptorChain, life: UInt32) throws(RingFault) -> Bool {
        let waiting = available.load16(at: 2) &- nextAvailable
        if waiting == 0 { return false }
        if waiting > size { throw RingFault(reason: "its available index is \(waiting) ahead, it has \(size) descriptors") }
        if inFlight >= Int(size) { throw RingFault(reason: "more buffers were made available than it has descriptors") }
        let head = available.load16(at: 4 + 2 * Int(nextAvailable & (size - 1)))
        chain.clear()
        try collect(from: head, into: &chain)
        chain.ticket = VirtqueueTicket(head: head, life: life)
        nextAvailable &+= 1
        inFlight += 1
        return true
    }

    mutating func rewind(_ count: Int) {
        let count = max(0, min(count, inFlight))
        nextAvailable &-= UInt16(count)
        inFlight -= count
    }

    private func collect(from head: UInt16, into chain: inout DescriptorChain) throws(RingFault) {
        var index = head
        for _ in 0..<size {
            if index >= size { throw RingFault(reason: "descriptor \(index) is used, it has \(size)") }
            let descriptor = Descriptor(table, Int(index))
            if descriptor.flags & Flag.indirect != 0 {
                if descriptor.flags & Flag.next != 0 { throw RingFault(reason: "descriptor \(index) is indirect and has a next one") }
                return try collect(indirect: descriptor, into: &chain)
            }
            try append(descriptor, to: &chain)
            if descriptor.flags & Flag.next == 0 { return }
            index = descriptor.next
        }
        throw RingFault(reason: "the chain of descriptor \(head) is a loop")
    }

    private func collect(indirect outer: Descriptor, into chain: inout DescriptorChain) throws(RingFault) {
        guard allowsIndirect else { throw RingFault(reason: "an indirect descriptor is used, which was not negotiated") }
        let count = Int(outer.length) / 16
        // A multiple of 8 is less than what §2.7.5.3 leaves open, and what every allocator gives.
        guard outer.length % 16 == 0, count > 0, count <= DescriptorChain.maximumSegments, outer.address % 8 == 0,
            let table = try? memory.window(at: outer.address, count: Int(outer.length))
        else {
            let place = "\(outer.length) bytes at \(hexadecimal(outer.address))"
            throw RingFault(reason: "an indirect table of \(place) is not in RAM, too long or not aligned")
        }
        var index = 0
        for _ in 0..<count {
            if index >= count { throw RingFault(reason: "descriptor \(index) of an indirect table is used, it has \(count)") }
            let descriptor = Descriptor(table, index)
            if descriptor.flags & Flag.indirect != 0 { throw RingFault(reason: "an indirect table holds an indirect descriptor") }
            try append(descriptor, to: &chain)
            if descriptor.flags & Flag.next == 0 { return }
            index = Int(descriptor.next)
        }
        throw RingFault(reason: "a chain in an indirect table is a loop")
    }

    private func append(_ descriptor: Descriptor, to chain: inout DescriptorChain) throws(RingFault) {
        let isWritable = descriptor.flags & Flag.write != 0
        let count = Int(descriptor.length)
        if count == 0 { throw RingFault(reason: "a descriptor has no bytes") }
        if layout.offset(of: descriptor.address, count: count) == nil {
            throw RingFault(reason: "\(count) bytes at \(hexadecimal(descriptor.address)) are not RAM")
        }
        if chain.segments.count >= DescriptorChain.maximumSegments {
            throw RingFault(reason: "a chain has more than \(DescriptorChain.maximumSegments) descriptors")
        }
        if !isWritable, chain.segments.count > chain.readableCount { throw RingFault(reason: "a descriptor to read follows one to write") }
        chain.append(DescriptorChain.Segment(address: descriptor.address, count: count), isWritable: isWritable)
    }

    mutating func push(head: UInt16, written: Int) {
        let place = 4 + 8 * Int(nextUsed & (size - 1))
        used.store(UInt32(head), at: place)
        used.store(UInt32(clamping: written), at: place + 4)
        nextUsed &+= 1
        inFlight = max(0, inFlight - 1)
    }

    /// Shows what was pushed; whether the driver wants an interrupt for it.
    mutating func publish() -> Bool {
        if published == nextUsed { return false }
        used.store(nextUsed, at: 2)
        published = nextUsed
        GuestWindow.fence()
        if !usesEventIndex { return available.load16(at: 0) & 1 == 0 }
        let event = available.load16(at: 4 + 2 * Int(size))
        let before = signalled
        signalled = nextUsed
        return nextUsed &- event &- 1 < nextUsed &- before  // §2.7.10
    }

    func disableNotifications() {
        if !usesEventIndex { used.store(UInt16(1), at: 0) }
    }

    /// Whether a chain is there by now.
    func enableNotifications() -> Bool {
        if usesEventIndex { used.store(nextAvailable, at: 4 + 8 * Int(size)) } else { used.store(UInt16(0), at: 0) }
        GuestWindow.fence()
        return !isEmpty
    }
}

/// A descriptor as it was when it was fetched (§2.7.5).
private struct Descriptor {
    let address: UInt64
    let length: UInt32
    let flags: UInt16
    let next: UInt16

    init(_ table: GuestWindow, _ index: Int) {
        address = table.load64(at: 16 * index)
        let rest = table.load64(at: 16 * index + 8)
        length = UInt32(truncatingIfNeeded: rest)
        flags = UInt16(truncatingIfNeeded: rest >> 32)
        next = UInt16(truncatingIfNeeded: rest >> 48)
    }
}

extension DescriptorChain {
    mutating func clear() {
        segments.removeAll(keepingCapacity: true)
        readableCount = 0
        readableBytes = 0
        writableBytes = 0
    }

    mutating func append(_ segment: Segment, isWritable: Bool) {
        segments.append(segment)
        if isWritable {
            writableBytes += segment.count
        } else {
            readableCount += 1
            readableBytes += segment.count
        }
    }
}

/// `0x…`, for people.
func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
