import GuestMemory
import LinuxSystem
import RandomTestSupport
import Synchronization
import Testing

@testable import Devices

/// A queue of eight in RAM that a test writes to as it likes.
private final class Ring {
    static let table: UInt64 = 0x1000
    static let available: UInt64 = 0x2000
    static let used: UInt64 = 0x3000
    static let indirect: UInt64 = 0x4000
    static let size = 1 << 20
    let memory: GuestMemory
    let queue: Virtqueue
    let transport = RecordedTransport()

    init(_ features: VirtioFeatures = [.version1, .indirectDescriptors], size: UInt16 = 8) throws {
        let memory = GuestMemory(
            GuestMemoryLayout(size: Self.size),
            mapping: try SharedMapping(of: MemoryDescriptor(name: "ram", size: Self.size).descriptor, length: Self.size))
        self.memory = memory
        queue = Virtqueue(index: 0, maximumSize: size, memory: memory, doorbell: try Doorbell(), transport: transport)
        queue.configure { state in
            state.isEnabled = true
            state.descriptors = Self.table
            state.available = Self.available
            state.used = Self.used
        }
        queue.open(features)
    }

    func describe(_ index: Int, _ address: UInt64, _ count: UInt32, flags: UInt16 = 0, next: UInt16 = 0, table: UInt64 = Ring.table) {
        try? memory.write(integer: address, at: table + 16 * UInt64(index))
        try? memory.write(integer: count, at: table + 16 * UInt64(index) + 8)
        try? memory.write(integer: flags, at: table + 16 * UInt64(index) + 12)
        try? memory.write(integer: next, at: table + 16 * UInt64(index) + 14)
    }

    func offer(_ heads: UInt16...) {
        var index: UInt16 = (try? memory.read(at: Self.available + 2)) ?? 0
        for head in heads {
            try? memory.write(integer: head, at: Self.available + 4 + 2 * UInt64(index % 8))
            index &+= 1
        }
        set(Self.available + 2, index)
    }

    func set(_ address: UInt64, _ value: UInt16) { try? memory.write(integer: value, at: address) }
    func get(_ address: UInt64) -> UInt16 { (try? memory.read(at: address)) ?? 0 }
}

private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
}

@Suite struct `A virtqueue` {
    @Test func `gives a chain as the driver made it`() throws {
        let ring = try Ring()
        ring.describe(5, 0x8000, 16, flags: Flag.next, next: 2)
        ring.describe(2, 0x8000, 32, flags: Flag.next, next: 7)
        ring.describe(7, 0x9000, 512, flags: Flag.write)
        ring.offer(5)
        #expect(!ring.queue.isEmpty)
        let chain = try #require(ring.queue.pop())
        #expect(chain.segments.map(\.address) == [0x8000, 0x8000, 0x9000] && chain.segments.map(\.count) == [16, 32, 512])
        #expect(chain.readableCount == 2 && chain.readableBytes == 48 && chain.writableBytes == 512 && chain.ticket.head == 5)
        #expect(ring.queue.isEmpty && ring.queue.pop() == nil && ring.queue.inFlight == 1)
        ring.queue.complete(chain.ticket, written: 100)
        #expect(ring.get(Ring.used + 2) == 1 && ring.get(Ring.used + 4) == 5 && ring.get(Ring.used + 8) == 100)
        #expect(ring.queue.inFlight == 0 && ring.transport.interrupts(of: 0) == 1)
    }

    @Test func `follows an indirect table, after direct descriptors too`() throws {
        let ring = try Ring()
        ring.describe(0, 0x8000, 1, flags: Flag.next, next: 1)
        ring.describe(1, Ring.indirect, 48, flags: Flag.indirect | Flag.write)
        ring.describe(0, 0x8100, 2, flags: Flag.next, next: 2, table: Ring.indirect)
        ring.describe(2, 0x8200, 3, flags: Flag.write, table: Ring.indirect)
        ring.offer(0)
        let chain = try #require(ring.queue.pop())
        #expect(chain.segments.map(\.count) == [1, 2, 3] && chain.readableCount == 2)
    }

    @Test func `goes round and round, and finishes in any order`() throws {
        let ring = try Ring()
        for index in 0..<8 { ring.describe(index, 0x8000, 4, flags: Flag.write) }
        for _ in 0..<22_000 {
            ring.offer(1, 2, 3)
            let chains = (0..<3).compactMap { _ in ring.queue.pop() }
            #expect(chains.count == 3)
            for chain in chains.reversed() { ring.queue.push(chain.ticket, written: 0) }
            ring.queue.publish()
        }
        #expect(ring.get(Ring.used + 2) == UInt16(truncatingIfNeeded: 66_000) && !ring.transport.hasFailed)
        #expect(ring.transport.interrupts(of: 0) == 22_000)
    }

    @Test func `gives back what was popped too much`() throws {
        let ring = try Ring()
        for index in 0..<8 { ring.describe(index, 0x8000, 4, flags: Flag.write) }
        ring.offer(4, 5, 6)
        let chains = (0..<3).compactMap { _ in ring.queue.pop() }
        ring.queue.push(chains[0].ticket, written: 1)
        ring.queue.rewind(2, of: chains[1].ticket)
        ring.queue.publish()
        #expect(ring.queue.inFlight == 0 && ring.get(Ring.used + 2) == 1)
        #expect(ring.queue.pop()?.ticket.head == 5 && ring.queue.pop()?.ticket.head == 6 && ring.queue.pop() == nil)
    }

    @Test func `interrupts as the driver asks with flags`() throws {
        let ring = try Ring()
        ring.describe(0, 0x8000, 4, flags: Flag.write)
        for (flags, expected) in [(0, 1), (1, 0)] as [(UInt16, Int)] {
            ring.set(Ring.available, flags)
            let before = ring.transport.interrupts(of: 0)
            ring.offer(0)
            ring.queue.complete(try #require(ring.queue.pop()).ticket, written: 0)
            #expect(ring.transport.interrupts(of: 0) - before == expected)
        }
        ring.queue.disableNotifications()
        #expect(ring.get(Ring.used) == 1)
        #expect(!ring.queue.enableNotifications() && ring.get(Ring.used) == 0)
        ring.offer(0)
        #expect(ring.queue.enableNotifications(), "one came meanwhile")
    }

    @Test func `interrupts and is rung as both sides ask with indices`() throws {
        let ring = try Ring([.version1, .eventIndex])
        ring.describe(0, 0x8000, 4, flags: Flag.write)
        var interrupts: [Int] = []
        ring.set(Ring.available + 4 + 16, 2)  // after the third
        for _ in 0..<5 {
            ring.offer(0)
            ring.queue.complete(try #require(ring.queue.pop()).ticket, written: 0)
            interrupts.append(ring.transport.interrupts(of: 0))
        }
        #expect(interrupts == [0, 0, 1, 1, 1])
        #expect(!ring.queue.enableNotifications() && ring.get(Ring.used + 4 + 64) == 5)
        ring.set(Ring.available + 4 + 16, 6)
        ring.offer(0, 0)
        for _ in 0..<2 { ring.queue.push(try #require(ring.queue.pop()).ticket, written: 0) }
        ring.queue.publish()
        ring.queue.publish()
        #expect(ring.transport.interrupts(of: 0) == 2, "one for both, and none for nothing")
    }

    @Test func `is closed until it is opened, and after a reset`() throws {
        let ring = try Ring()
        ring.describe(0, 0x8000, 4, flags: Flag.write)
        ring.offer(0, 0, 0)
        let chain = try #require(ring.queue.pop())
        let other = try #require(ring.queue.pop())
        ring.queue.reset()
        #expect(ring.queue.pop() == nil && ring.queue.isEmpty && ring.queue.inFlight == 2 && !ring.queue.enableNotifications())
        ring.queue.complete(chain.ticket, written: 4)
        ring.queue.rewind(1, of: other.ticket)
        #expect(ring.get(Ring.used + 2) == 0 && ring.queue.inFlight == 0 && ring.transport.interrupts(of: 0) == 0)
    }

    private static let hostile: [(String, String, @Sendable (Ring) -> Void)] = [
        ("a loop of one", "loop", { $0.describe(0, 0x8000, 4, flags: Flag.next, next: 0) }),
        (
            "a loop of two", "loop",
            {
                $0.describe(0, 0x8000, 4, flags: Flag.next, next: 1)
                $0.describe(1, 0x8000, 4, flags: Flag.next, next: 0)
            }
        ),
        ("a next one that is not there", "descriptor 8 is used", { $0.describe(0, 0x8000, 4, flags: Flag.next, next: 8) }),
        ("no bytes", "has no bytes", { $0.describe(0, 0x8000, 0) }),
        ("bytes beyond RAM", "not RAM", { $0.describe(0, UInt64(Ring.size) - 2, 4) }),
        ("bytes far beyond RAM", "not RAM", { $0.describe(0, 1 << 40, 4) }),
        ("bytes round the end of addresses", "not RAM", { $0.describe(0, .max - 1, 4) }),
        ("more bytes than there are", "not RAM", { $0.describe(0, 0, .max) }),
        (
            "reading after writing", "to read follows",
            {
                $0.describe(0, 0x8000, 4, flags: Flag.next | Flag.write, next: 1)
                $0.describe(1, 0x8000, 4)
            }
        ),
        (
            "an indirect table in an indirect table", "holds an indirect",
            { ring in
                ring.describe(0, Ring.indirect, 32, flags: Flag.indirect)
                ring.describe(0, Ring.indirect, 32, flags: Flag.indirect, table: Ring.indirect)
            }
        ),
        ("an indirect one with a next one", "and has a next one", { $0.describe(0, Ring.indirect, 32, flags: Flag.indirect | Flag.next, next: 1) }),
        ("an indirect table that is empty", "0 bytes", { $0.describe(0, Ring.indirect, 0, flags: Flag.indirect) }),
        ("an indirect table of a broken length", "40 bytes", { $0.describe(0, Ring.indirect, 40, flags: Flag.indirect) }),
        ("an indirect table that is too long", "too long", { $0.describe(0, Ring.indirect, 16 * 1025, flags: Flag.indirect) }),
        ("an indirect table that is not in RAM", "not in RAM", { $0.describe(0, UInt64(Ring.size) - 16, 32, flags: Flag.indirect) }),
        ("an indirect table that is not aligned", "not aligned", { $0.describe(0, Ring.indirect + 4, 32, flags: Flag.indirect) }),
        (
            "a loop in an indirect table", "loop",
            { ring in
                ring.describe(0, Ring.indirect, 32, flags: Flag.indirect)
                ring.describe(0, 0x8000, 4, flags: Flag.next, next: 1, table: Ring.indirect)
                ring.describe(1, 0x8000, 4, flags: Flag.next, next: 0, table: Ring.indirect)
            }
        ),
        (
            "a next one outside its indirect table", "it has 2",
            { ring in
                ring.describe(0, Ring.indirect, 32, flags: Flag.indirect)
                ring.describe(0, 0x8000, 4, flags: Flag.next, next: 2, table: Ring.indirect)
            }
        ),
        ("a head that is not there", "descriptor 9", { $0.set(Ring.available + 4, 9) }),
        ("an index that jumped", "9 ahead", { $0.set(Ring.available + 2, 9) }),
        ("an index that went back", "65535 ahead", { $0.set(Ring.available + 2, .max) }),
    ]

    @Test(arguments: hostile.indices)
    func `fails over what no driver makes`(_ number: Int) throws {
        let (name, reason, spoil) = Self.hostile[number]
        let ring = try Ring()
        ring.offer(0)
        spoil(ring)
        #expect(ring.queue.pop() == nil, "\(name)")
        #expect(ring.transport.fault?.contains(reason) == true, "\(name): \(ring.transport.fault ?? "no fault")")
        #expect(ring.transport.fault?.hasPrefix("queue 0: ") == true)
        #expect(ring.queue.pop() == nil && ring.queue.isEmpty && ring.queue.inFlight == 0)
    }

    @Test func `does not follow indirect tables that were not negotiated`() throws {
        let ring = try Ring([.version1])
        ring.describe(0, Ring.indirect, 32, flags: Flag.indirect)
        ring.offer(0)
        #expect(ring.queue.pop() == nil && ring.transport.fault?.contains("not negotiated") == true)
    }

    @Test func `has no more in flight than it has descriptors`() throws {
        let ring = try Ring()
        ring.describe(0, 0x8000, 4)
        for _ in 0..<8 {
            ring.offer(0)
            #expect(ring.queue.pop() != nil)
        }
        ring.offer(0)
        #expect(ring.queue.pop() == nil && ring.transport.hasFailed)
    }

    @Test(arguments: 0..<64) func `survives rings full of nonsense`(_ seed: Int) throws {
        var random = SplitMix(UInt64(seed))
        let ring = try Ring(seed % 2 == 0 ? [.version1, .indirectDescriptors] : [.version1, .indirectDescriptors, .eventIndex])
        for _ in 0..<200 {
            for address in [Ring.table, Ring.available, Ring.indirect] {
                for offset in 0..<8 as Range<UInt64> where random.next() % 2 == 0 {
                    // Often what could be meant: small numbers, addresses in RAM.
                    let value = random.next() & [.max, 0x0003_0007_0000_FFFF, 0xFFF8, 7][Int(random.next() % 4)]
                    try ring.memory.write(integer: value, at: address + 8 * offset)
                }
            }
            var chain = DescriptorChain()
            while ring.queue.pop(into: &chain) {
                #expect(chain.segments.count <= DescriptorChain.maximumSegments)
                for segment in chain.segments { #expect(ring.memory.layout.offset(of: segment.address, count: segment.count) != nil) }
                if random.next() % 3 == 0 { ring.queue.rewind(1, of: chain.ticket); break }
                ring.queue.complete(chain.ticket, written: Int(truncatingIfNeeded: random.next()))
            }
            _ = ring.queue.enableNotifications()
            if ring.transport.hasFailed { return }
        }
    }

    @Test func `survives a guest that rewrites its rings all the time`() throws {
        let ring = try Ring(size: 8)
        let isOver = Atomic<Bool>(false)
        let memory = ring.memory
        let writer = try SystemThread(name: "guest") {
            var random = SplitMix(1)
            while !isOver.load(ordering: .relaxed) {
                let index = random.next() % 8
                let flags: UInt64 = random.next() % 4
                let next = random.next() % 8
                try? memory.write(integer: random.next() % 3 == 0 ? random.next() : 0x8000, at: Ring.table + 16 * index)
                try? memory.write(integer: random.next() % 64 + 1 | flags << 32 | next << 48, at: Ring.table + 16 * index + 8)
            }
        }
        for index in 0..<8 { ring.describe(index, 0x8000, 4) }
        for round in 0..<50_000 {
            ring.offer(UInt16(round % 8))
            if let chain = ring.queue.pop() {
                for segment in chain.segments where memory.layout.offset(of: segment.address, count: segment.count) == nil {
                    Issue.record("a segment is not RAM")
                }
                ring.queue.complete(chain.ticket, written: 0)
            }
            if ring.transport.hasFailed {
                ring.transport.reset()
                ring.queue.reset()
                ring.queue.configure { state in
                    state.isEnabled = true
                    state.descriptors = Ring.table
                    state.available = Ring.available
                    state.used = Ring.used
                    state.nextAvailable = ring.get(Ring.available + 2)
                }
                ring.queue.open([.version1])
            }
        }
        isOver.store(true, ordering: .relaxed)
        writer.join()
    }

    @Test func `goes on in another worker where it was`() throws {
        let ring = try Ring()
        ring.describe(0, 0x8000, 4)
        ring.offer(0, 0)
        ring.queue.complete(try #require(ring.queue.pop()).ticket, written: 0)
        let next = Virtqueue(index: 0, maximumSize: 8, memory: ring.memory, doorbell: try Doorbell(), transport: ring.transport)
        next.restore(ring.queue.state)
        #expect(next.pop() == nil)
        next.open([.version1])
        #expect(next.state == ring.queue.state)
        next.complete(try #require(next.pop()).ticket, written: 0)
        #expect(next.pop() == nil && ring.get(Ring.used + 2) == 2)
    }
}
