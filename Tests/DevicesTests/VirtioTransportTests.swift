import GuestMemory
import LinuxSystem
import Testing

@testable import Devices

@Suite struct `A virtio function` {
    private let bench: FunctionBench

    init() throws { bench = try FunctionBench() }

    private func capabilities() -> [(id: UInt32, type: UInt32, offset: Int)] {
        var found: [(UInt32, UInt32, Int)] = []
        var offset = Int(bench.configuration(0x34, 1))
        while offset != 0, found.count < 16 {
            found.append((bench.configuration(offset, 1), bench.configuration(offset + 3, 1), offset))
            offset = Int(bench.configuration(offset + 1, 1))
        }
        return found
    }

    @Test func `says where its structures are`() {
        let found = capabilities()
        #expect(found.map(\.id) == [0x11, 9, 9, 9, 9, 9])
        #expect(found.dropFirst().map(\.type) == [1, 2, 3, 4, 5])
        let places = found.dropFirst().map { bench.configuration($0.offset + 8) }
        #expect(places == [0, 0x3000, 0x1000, 0x2000, 0])
        #expect(bench.configuration(found[2].offset + 16) == 4, "the multiplier of notification offsets")
        #expect(bench.configuration(found[0].offset + 2, 2) == 2, "three vectors")
        #expect(bench.configuration(0x3D, 1) == 0, "no interrupt pin")
    }

    @Test func `negotiates features only as far as it offers them`() {
        bench.enable()
        for (select, expected) in [(0, 1 << 28 | 1 << 29 | 1 << 5), (1, 1), (2, 0)] as [(UInt64, UInt64)] {
            bench.write(select, 0, 4)
            #expect(bench.read(4, 4) == expected)
        }
        for refused in [1 << 32 | 1 << 6, 1 << 5, 0] as [UInt64] {
            bench.status = 0
            bench.status = 3
            bench.negotiate(refused)
            bench.status = 11
            #expect(bench.status == 3)
            bench.status = 15
            #expect(bench.status == 3 && !bench.device.history.contains { $0.hasPrefix("activate") })
        }
        bench.negotiate(1 << 32 | 1 << 5)
        bench.status = 11
        #expect(bench.status == 11)
        bench.negotiate(1 << 32)
        bench.status = 15
        #expect(bench.device.history.last == "activate \(1 << 32 | 1 << 5)", "what was agreed on stays")
    }

    @Test func `goes through its life`() {
        bench.drive()
        #expect(bench.status == 15)
        #expect(bench.read(0x12, 2) == 2)
        for bit in [0, 4, 1] as [UInt64] { if bit != 0 { bench.status = bit } }
        #expect(bench.status == 15, "bits are not taken back one by one")
        #expect(bench.device.history == ["activate \(1 << 32)"])
        bench.status = 0
        #expect(bench.status == 0 && bench.device.history.last == "reset")
        bench.write(0, 0x16, 2)
        #expect(bench.read(0x1C, 2) == 0 && bench.read(0x18, 2) == 8 && bench.read(0x20, 8) == 0 && bench.read(0x1A, 2) == 0xFFFF)
        #expect(bench.read(0x10, 2) == 0xFFFF)
    }

    @Test func `keeps what an enabled queue is made of`() {
        bench.drive()
        bench.write(0, 0x16, 2)
        bench.write(2, 0x18, 2)
        bench.write(0xABC0, 0x20, 8)
        bench.write(0, 0x1C, 2)
        #expect(bench.read(0x18, 2) == 8 && bench.read(0x20, 8) == 0x1000 && bench.read(0x1C, 2) == 1)
        #expect(bench.read(0x28, 4) & 0xFFFF_FFFF == 0x2000)
    }

    @Test func `has no queue and no vector beyond the last`() {
        bench.enable()
        bench.write(2, 0x16, 2)
        bench.write(1, 0x1C, 2)
        #expect(bench.read(0x18, 2) == 0 && bench.read(0x1C, 2) == 0)
        bench.write(1, 0x16, 2)
        for size in [0, 3, 32] as [UInt64] { bench.write(size, 0x18, 2) }
        #expect(bench.read(0x18, 2) == 16)
        bench.write(3, 0x1A, 2)
        #expect(bench.read(0x1A, 2) == 0xFFFF)
        bench.write(2, 0x1A, 2)
        #expect(bench.read(0x1A, 2) == 2 && bench.read(0x1E, 2) == 1)
        bench.write(3, 0x10, 2)
        #expect(bench.read(0x10, 2) == 0xFFFF)
    }

    @Test func `interrupts for used buffers and for faults by the vectors it was given`() throws {
        bench.drive()
        try bench.makeAvailable(0, head: 0, address: 0x8000, count: 16, flags: 2)
        let queue = bench.function.queues[0]
        let chain = try #require(queue.pop())
        queue.complete(chain.ticket, written: 16)
        #expect(bench.messages.take().map(\.data) == [1])
        #expect(bench.read(0x1000, 1) == 0, "ISR is for those without MSI-X")
        try bench.memory.write(integer: UInt16(1000), at: 0x2002)
        #expect(queue.pop() == nil)
        #expect(bench.status == 15 | 0x40 && bench.messages.take().map(\.data) == [0])
        #expect(bench.log == ["test/d0: virtio block needs a reset: queue 0: its available index is 999 ahead, it has 8 descriptors"])
        #expect(bench.function.queues[1].pop() == nil && bench.function.queues[1].isEmpty)
        bench.function.queues[1].complete(chain.ticket, written: 0)
        bench.status = 0
        #expect(bench.status == 0 && !bench.function.hasFailed)
    }

    @Test func `has a reset end when nothing is in flight any more`() throws {
        bench.drive()
        try bench.makeAvailable(0, head: 3, address: 0x8000, count: 16, flags: 2)
        let queue = bench.function.queues[0]
        let chain = try #require(queue.pop())
        bench.status = 0
        #expect(bench.status != 0)
        bench.status = 1
        bench.write(1, 0x16, 2)
        #expect(bench.read(0x16, 2) == 0, "nothing is written in between")
        let before: UInt16 = try bench.memory.read(at: 0x3002)
        queue.complete(chain.ticket, written: 16)
        #expect(try bench.memory.read(UInt16.self, at: 0x3002) == before, "what ends late goes nowhere")
        #expect(bench.status == 0 && bench.messages.all.isEmpty)
        bench.drive()
        #expect(bench.status == 15)
    }

    @Test func `fails over queues that are not in RAM`() {
        bench.enable()
        bench.status = 3
        bench.negotiate(1 << 32)
        bench.status = 11
        bench.setQueue(0, size: 8, descriptors: 0x1000, available: 0x2000, used: 0x10_0000 - 8, vector: 1)
        bench.status = 15
        #expect(bench.status == 15 | 0x40)
        #expect(bench.log.count == 1 && bench.log[0].contains("used ring of 70 bytes at 0xffff8 is not in RAM"))
    }

    @Test func `can be reached through configuration space alone`() throws {
        bench.drive()
        let access = try #require(capabilities().last).offset
        bench.setConfiguration(0, access + 4, 1)
        bench.setConfiguration(0x14, access + 8)
        bench.setConfiguration(1, access + 12)
        #expect(bench.configuration(access + 16, 1) == 15)
        bench.setConfiguration(0, access + 16, 1)
        #expect(bench.status == 0)
        for (bar, offset, size) in [(1, 0x14, 1), (0, 0x8000, 4), (0, 0x7FFE, 4), (0, 0, 3), (0, 0, 0), (0, 0xFFFF_FFFC, 4)]
            as [(UInt32, UInt32, UInt32)]
        {
            bench.setConfiguration(bar, access + 4, 1)
            bench.setConfiguration(offset, access + 8)
            bench.setConfiguration(size, access + 12)
            bench.setConfiguration(.max, access + 16)
            #expect(bench.configuration(access + 16) == 0)
        }
    }

    @Test func `reads and writes its device's configuration with every width`() {
        bench.enable()
        #expect(bench.read(0x2000, 4) & 0xFFFF_FFFF == 0x0403_0201)
        #expect(bench.read(0x2002, 2) & 0xFFFF == 0x0403)
        #expect(bench.read(0x200A, 4) & 0xFFFF_FFFF == 0x0C0B, "what is beyond its end is 0")
        #expect(bench.read(0x2FFC, 4) == 0)
        bench.write(0xAABB, 0x2002, 2)
        bench.write(0xCCDD_EEFF, 0x200A, 4)
        #expect(bench.device.configuration() == [1, 2, 0xBB, 0xAA, 5, 6, 7, 8, 9, 10, 0xFF, 0xEE])
    }

    @Test func `rings the doorbell that a write of any width names`() {
        bench.drive()
        for queue in bench.function.queues { queue.doorbell.take() }
        for (index, size) in [(1, 2), (0, 4), (1, 1)] {
            bench.write(UInt64(index), 0x3000 + 4 * index, size)
            #expect(bench.function.queues.map { $0.doorbell.event.take() } == (index == 0 ? [1, 0] : [0, 1]))
        }
        bench.write(0, 0x3008, 2)
        bench.write(0, 0x3FFC, 4)
        #expect(bench.function.queues.map { $0.doorbell.event.take() } == [0, 0])
    }

    @Test func `is the same in the next worker, in the middle of its work`() throws {
        bench.drive(features: 1 << 32 | 1 << 29)
        for head in 0..<3 as Range<UInt16> { try bench.makeAvailable(0, head: head, address: 0x8000, count: 16, flags: 2) }
        let queue = bench.function.queues[0]
        let first = try #require(queue.pop())
        queue.complete(first.ticket, written: 16)
        let next = try FunctionBench(memory: bench.memory)
        next.function.restore(bench.function.state)
        #expect(next.device.history == ["activate \(1 << 32 | 1 << 29)"])
        #expect(next.function.state == bench.function.state && next.status == 15)
        for head in 1..<3 as Range<UInt16> {
            let chain = try #require(next.function.queues[0].pop())
            #expect(chain.ticket.head == head)
            next.function.queues[0].complete(chain.ticket, written: 1)
        }
        #expect(next.function.queues[0].pop() == nil)
        #expect(try bench.memory.read(UInt16.self, at: 0x3002) == 3)
    }
}

extension VirtioPCIFunction {
    fileprivate var queues: [Virtqueue] { registers.queues }
}

extension FunctionBench {
    /// Puts a chain of one descriptor into queue 0 as ``drive(features:)`` has set it.
    fileprivate func makeAvailable(_ queue: Int, head: UInt16, address: UInt64, count: UInt32, flags: UInt16) throws {
        try memory.write(integer: address, at: 0x1000 + 16 * UInt64(head))
        try memory.write(integer: UInt64(count) | UInt64(flags) << 32, at: 0x1008 + 16 * UInt64(head))
        let index: UInt16 = try memory.read(at: 0x2002)
        try memory.write(integer: head, at: 0x2004 + 2 * UInt64(index % 8))
        try memory.write(integer: index &+ 1, at: 0x2002)
    }
}
