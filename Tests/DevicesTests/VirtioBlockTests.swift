import Devices
import Glibc
import GuestMemory
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

/// A disk in memory that can be made to answer late, or never, or with an error.
final class TestDisk: Disk {
    let file: DiskFile
    let memory: SharedDescriptor
    let isReadOnly: Bool
    private let calls = Mutex<[String]>([])
    private let failure = Mutex<Errno?>(nil)
    /// 0 while requests are let through.
    let gate = Futex()
    private let waiting = Atomic<Int>(0)

    init(sectors: Int = 2048, isReadOnly: Bool = false) throws {
        memory = SharedDescriptor(try MemoryDescriptor(name: "disk", size: sectors * 512).takeDescriptor())
        file = try DiskFile(memory, isReadOnly: isReadOnly)
        self.isReadOnly = isReadOnly
    }

    var size: Int64 { file.size }
    var blockSize: Int { file.blockSize }
    var log: [String] { calls.withLock { $0 } }
    /// Requests that wait at the gate.
    var stuck: Int { waiting.load(ordering: .sequentiallyConsistent) }
    func fail(_ error: Errno?) { failure.withLock { $0 = error } }
    func content(at offset: Int, count: Int) throws -> [UInt8] { try memory.descriptor.read(upTo: count, at: offset) }

    private func pass(_ call: String) throws(Errno) {
        calls.withLock { $0.append(call) }
        waiting.add(1, ordering: .sequentiallyConsistent)
        while gate.value == 1 { gate.wait(while: 1) }
        waiting.subtract(1, ordering: .sequentiallyConsistent)
        if let error = failure.withLock({ $0 }) { throw error }
    }

    func read(into list: GuestVector, at offset: Int64) throws(Errno) {
        try pass("read \(offset) \(list.count)")
        try file.read(into: list, at: offset)
    }
    func write(from list: GuestVector, at offset: Int64) throws(Errno) {
        try pass("write \(offset) \(list.count)")
        try file.write(from: list, at: offset)
    }
    func flush() throws(Errno) {
        try pass("flush")
        try file.flush()
    }
    func discard(_ range: Range<Int64>) throws(Errno) {
        try pass("discard \(range.lowerBound) \(range.count)")
        try file.discard(range)
    }
    func writeZeroes(_ range: Range<Int64>, mayUnmap: Bool) throws(Errno) {
        try pass("zero \(range.lowerBound) \(range.count)\(mayUnmap ? " unmap" : "")")
        try file.writeZeroes(range, mayUnmap: mayUnmap)
    }
}

private func bytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> Value($0 * 8)) }
}
private func header(_ type: UInt32, sector: UInt64 = 0) -> [UInt8] { bytes(type) + bytes(UInt32(0)) + bytes(sector) }
private func range(_ sector: UInt64, _ count: UInt32, flags: UInt32 = 0) -> [UInt8] { bytes(sector) + bytes(count) + bytes(flags) }

private enum Ask {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let zero: UInt32 = 13
}

extension VirtioBench where D == VirtioBlock {
    /// One request from beginning to end: its status, and what was written before it.
    fileprivate func ask(_ sending: [[UInt8]], receiving: [Int] = []) throws -> (status: UInt8, data: [UInt8]) {
        let (head, rooms) = try drivers[0].add(sending: sending, receiving: receiving + [1])
        drivers[0].kick()
        let used = try used(1)
        #expect(used.map(\.head) == [head] && used.map(\.written) == [receiving.reduce(1, +)])
        var data: [UInt8] = []
        for (room, count) in zip(rooms, receiving) { data += try memory.read(at: room, count: count) }
        return (try memory.read(at: rooms[receiving.count]), data)
    }
}

@Suite struct `A virtio disk` {
    let disk: TestDisk
    let bench: VirtioBench<VirtioBlock>

    init() throws {
        disk = try TestDisk()
        bench = try VirtioBench(VirtioBlock(disk, serial: "baton-0001", queues: 1))
        bench.device.resume()
    }

    @Test func `what is written is read, in pieces of any size`() throws {
        let content = (0..<1536).map { UInt8(truncatingIfNeeded: $0 * 7) }
        #expect(try bench.ask([header(Ask.write, sector: 3), Array(content[..<5]), Array(content[5...])]).status == 0)
        #expect(try disk.content(at: 3 * 512, count: 1536) == content)
        let answer = try bench.ask([header(Ask.read, sector: 3)], receiving: [1, 511, 1024])
        #expect(answer.status == 0 && answer.data == content)
        #expect(disk.log == ["write 1536 1536", "read 1536 1536"])
    }

    @Test func `a header in pieces, and a status behind its data, are taken as any other`() throws {
        let head = header(Ask.read, sector: 1)
        let (_, rooms) = try bench.drivers[0].add(sending: [Array(head[..<3]), Array(head[3...])], receiving: [513])
        bench.drivers[0].kick()
        #expect(try bench.used(1).map(\.written) == [513])
        #expect(try bench.memory.read(UInt8.self, at: rooms[0] + 512) == 0)
        #expect(disk.log == ["read 512 512"])
    }

    @Test func `its serial number ends with a zero if it is short, and is cut if the room is`() throws {
        let answer = try bench.ask([header(Ask.identify)], receiving: [20])
        #expect(answer.status == 0 && answer.data == Array("baton-0001".utf8) + [UInt8](repeating: 0, count: 10))
        #expect(try bench.ask([header(Ask.identify)], receiving: [5]).data == Array("baton".utf8))
    }

    @Test func `flush, discard and zeros reach the disk`() throws {
        let ones = [UInt8](repeating: 1, count: 2048)
        #expect(try bench.ask([header(Ask.write), ones]).status == 0)
        #expect(try bench.ask([header(Ask.flush)]).status == 0)
        #expect(try bench.ask([header(Ask.discard), range(0, 1) + range(2, 1)]).status == 0)
        #expect(try bench.ask([header(Ask.zero), range(1, 1), range(3, 1, flags: 1)]).status == 0)
        #expect(disk.log == ["write 0 2048", "flush", "discard 0 512", "discard 1024 512", "zero 512 512", "zero 1536 512 unmap"])
        #expect(try disk.content(at: 0, count: 2048) == [UInt8](repeating: 0, count: 2048))
    }

    @Test(
        arguments: [
            (Ask.read, 2048, [], [512]), (Ask.read, 2047, [], [1024]), (Ask.read, .max, [], [512]), (Ask.read, .max / 512 + 2, [], [512]),
            (Ask.read, 0, [], [100]), (Ask.read, 0, [], []), (Ask.write, 2048, [512], []), (Ask.write, 0, [513], []), (Ask.write, 0, [], []),
        ] as [(UInt32, UInt64, [Int], [Int])])
    func `what is not on the disk, or not whole sectors, is an error`(type: UInt32, sector: UInt64, sending: [Int], receiving: [Int]) throws {
        let data = sending.map { [UInt8](repeating: 9, count: $0) }
        #expect(try bench.ask([header(type, sector: sector)] + data, receiving: receiving).status == 1)
        #expect(disk.log.isEmpty && bench.transport.fault == nil)
    }

    @Test(
        arguments: [
            (Ask.discard, range(2048, 1), 1), (Ask.discard, range(.max, .max), 1), (Ask.discard, range(0, .max), 1), (Ask.discard, range(0, 2049), 1),
            (Ask.discard, range(0, 1, flags: 1), 2), (Ask.discard, range(0, 1, flags: 2), 2), (Ask.discard, [], 1), (Ask.discard, [1, 2, 3], 1),
            (Ask.discard, [UInt8](repeating: 0, count: 16 * 17), 1), (Ask.zero, range(0, 1 << 15 + 1), 1), (Ask.zero, range(2000, 49), 1),
            (Ask.zero, range(0, 1, flags: .max), 2), (Ask.zero, range(0, 0), 0), (Ask.discard, range(2048, 0), 0),
        ] as [(UInt32, [UInt8], UInt8)])
    func `absurd ranges are refused, and nothing is done`(type: UInt32, ranges: [UInt8], status: UInt8) throws {
        #expect(try bench.ask([header(type)] + (ranges.isEmpty ? [] : [ranges])).status == status)
        #expect(disk.log.isEmpty)
    }

    @Test(arguments: [2, 3, 5, 14, 0x8000_0000, .max] as [UInt32])
    func `what it does not know is unsupported`(type: UInt32) throws {
        #expect(try bench.ask([header(type)], receiving: [512]).status == 2)
    }

    @Test(
        arguments: [([[1, 2, 3]], [1]), ([], [512, 1]), ([header(Ask.flush)], []), ([Array(header(Ask.flush).dropLast())], [1])]
            as [([[UInt8]], [Int])])
    func `a request that cannot be answered stops the device, and is said`(sending: [[UInt8]], receiving: [Int]) throws {
        try bench.drivers[0].add(sending: sending, receiving: receiving)
        bench.drivers[0].kick()
        #expect(bench.wait { bench.transport.hasFailed })
        #expect(bench.transport.fault?.contains("without a header or without room for its status") == true)
        bench.device.hold()
        #expect(bench.device.drain(until: SystemClock.monotonic() + 5_000_000_000) && bench.queues[0].inFlight == 0)
    }

    @Test func `an error of the storage is the guest's error, and the disk goes on`() throws {
        disk.fail(.ioError)
        #expect(try bench.ask([header(Ask.read)], receiving: [512]).status == 1)
        #expect(try bench.ask([header(Ask.flush)]).status == 1)
        disk.fail(nil)
        #expect(try bench.ask([header(Ask.read)], receiving: [512]).status == 0)
    }

    @Test func `a file cut short under the guest is an error`() throws {
        #expect(ftruncate(disk.memory.number, 512) == 0)
        #expect(try bench.ask([header(Ask.read, sector: 1)], receiving: [512]).status == 1)
    }

    @Test func `its configuration says size and limits`() {
        let space = bench.device.configuration()
        #expect(Array(space[..<8]) == bytes(UInt64(2048)) && space.count == 60)
        #expect(Array(space[8..<16]) == bytes(UInt32(1 << 20)) + bytes(UInt32(254)))
        #expect(Array(space[20..<28]) == bytes(UInt32(512)) + [3, 0] + bytes(UInt16(8)))
        #expect(Array(space[34..<40]) == bytes(UInt16(1)) + bytes(UInt32(1 << 22)))
    }
}

@Suite struct `A virtio disk's requests in flight` {
    let disk: TestDisk
    let bench: VirtioBench<VirtioBlock>

    init() throws {
        disk = try TestDisk()
        bench = try VirtioBench(VirtioBlock(disk, serial: "", queues: 2))
    }

    private func add(_ count: Int, queue: Int = 0) throws {
        for number in 0..<count {
            try bench.drivers[queue].add(sending: [header(Ask.write, sector: UInt64(number)), [UInt8](repeating: 1, count: 512)], receiving: [1])
        }
    }

    private static func deadline(_ milliseconds: Int64) -> Int64 { SystemClock.monotonic() + milliseconds * 1_000_000 }

    @Test func `several are in flight at once, from every queue, and all end`() throws {
        disk.gate.set(1)
        try add(20)
        try add(20, queue: 1)
        bench.device.resume()
        #expect(bench.wait { disk.stuck == 8 })
        #expect(bench.queues.map(\.inFlight).reduce(0, +) == 8 && bench.queues.allSatisfy { $0.inFlight > 0 })
        disk.gate.set(0)
        #expect(try bench.used(20).count == 20)
        #expect(try bench.used(20, of: 1).count == 20)
        #expect(disk.log.count == 40)
    }

    @Test func `one kick for each is enough, whoever else is busy`() throws {
        bench.device.resume()
        for _ in 0..<500 {
            for queue in 0..<2 {
                try add(1, queue: queue)
                bench.drivers[queue].kick()
            }
            #expect(try bench.used(1).count == 1)
            #expect(try bench.used(1, of: 1).count == 1)
        }
    }

    @Test func `held, it takes no more, and what waits is taken when it goes on, without a kick`() throws {
        try add(3)
        bench.drivers[0].kick()
        SystemClock.sleep(.milliseconds(20))
        #expect(disk.log.isEmpty)
        bench.device.resume()
        #expect(try bench.used(3).count == 3)
        bench.device.hold()
        #expect(bench.device.drain(until: Self.deadline(5000)))
        try add(2)
        bench.drivers[0].kick()
        SystemClock.sleep(.milliseconds(20))
        #expect(disk.log.count == 3 && bench.queues[0].inFlight == 0)
        bench.device.resume()
        #expect(try bench.used(2).count == 2)
    }

    @Test func `one that does not answer keeps it from settling, and the guest goes on when that is given up`() throws {
        disk.gate.set(1)
        bench.device.resume()
        try add(1)
        bench.drivers[0].kick()
        #expect(bench.wait { disk.stuck == 1 })
        bench.device.hold()
        let before = SystemClock.monotonic()
        #expect(!bench.device.drain(until: Self.deadline(30)))
        #expect(SystemClock.monotonic() - before >= 30_000_000)
        bench.device.resume()
        try add(1, queue: 1)
        bench.drivers[1].kick()
        #expect(bench.wait { disk.stuck == 2 })
        bench.device.hold()
        disk.gate.set(0)
        #expect(bench.device.drain(until: Self.deadline(5000)))
        #expect(try bench.used(1).count == 1 && disk.log.count == 2)
    }

    @Test func `nothing is done twice and nothing lost, however often it is held`() throws {
        bench.device.resume()
        var returned = 0
        for round in 0..<100 {
            try add(10, queue: round % 2)
            bench.drivers[round % 2].kick()
            bench.device.hold()
            #expect(bench.device.drain(until: Self.deadline(5000)))
            #expect(bench.queues.allSatisfy { $0.inFlight == 0 })
            bench.device.resume()
            returned += try bench.used(10, of: round % 2).count
        }
        #expect(returned == 1000 && disk.log.count == 1000)
    }

    @Test func `a reset lets what is in flight end into nothing`() throws {
        disk.gate.set(1)
        bench.device.resume()
        try add(2)
        bench.drivers[0].kick()
        #expect(bench.wait { disk.stuck == 2 })
        bench.reset()
        #expect(bench.queues[0].inFlight == 2)
        disk.gate.set(0)
        #expect(bench.wait { bench.queues[0].inFlight == 0 })
        #expect(try bench.drivers[0].takeUsed().isEmpty && bench.transport.interrupts(of: 0) == 0)
    }

    @Test func `a disk that hangs for ever does not keep its threads' end waiting`() throws {
        disk.gate.set(1)
        bench.device.resume()
        try add(1)
        bench.drivers[0].kick()
        #expect(bench.wait { disk.stuck == 1 })
        bench.device.hold()
        let before = SystemClock.monotonic()
        bench.device.finish()
        #expect(SystemClock.monotonic() - before < 4_000_000_000)
        disk.gate.set(0)
    }
}

@Suite struct `A virtio disk's features` {
    @Test func `without FLUSH every change is on stable storage before it ends`() throws {
        let disk = try TestDisk()
        let bench = try VirtioBench(VirtioBlock(disk, serial: "", queues: 1), accepting: [])
        bench.device.resume()
        #expect(try bench.ask([header(Ask.write), [UInt8](repeating: 1, count: 512)]).status == 0)
        #expect(try bench.ask([header(Ask.zero), range(0, 1)]).status == 0)
        #expect(disk.log == ["write 0 512", "flush", "zero 0 512", "flush"])
    }

    @Test func `a read-only disk changes nothing`() throws {
        let disk = try TestDisk(isReadOnly: true)
        let bench = try VirtioBench(VirtioBlock(disk, serial: "", queues: 1))
        bench.device.resume()
        #expect(bench.device.features.contains(.blockReadOnly) && bench.device.features.isDisjoint(with: [.blockDiscard, .blockWriteZeroes]))
        #expect(try bench.ask([header(Ask.write), [UInt8](repeating: 1, count: 512)]).status == 1)
        #expect(try bench.ask([header(Ask.discard), range(0, 1)]).status == 1)
        #expect(try bench.ask([header(Ask.zero), range(0, 1)]).status == 1)
        #expect(try bench.ask([header(Ask.flush)]).status == 0)
        #expect(try bench.ask([header(Ask.read)], receiving: [512]).status == 0)
        #expect(disk.log == ["flush", "read 0 512"])
    }

    @Test func `queues are offered where there are several`() throws {
        #expect(!VirtioBlock(try TestDisk(), serial: "", queues: 1).features.contains(.blockQueues))
        let device = VirtioBlock(try TestDisk(), serial: "", queues: 4)
        #expect(device.features.contains(.blockQueues) && device.queueSizes == [256, 256, 256, 256])
        #expect(Array(device.configuration()[34..<36]) == [4, 0])
    }

    @Test func `only storage is a disk`() throws {
        let pipe = SharedDescriptor(try EventDescriptor().descriptor.duplicate())
        #expect(throws: Errno.notBlockDevice) { try VirtioBlock(file: pipe, isReadOnly: false, serial: "", queues: 1) }
        let file = SharedDescriptor(try MemoryDescriptor(name: "disk", size: 1025).takeDescriptor())
        #expect(Array(try VirtioBlock(file: file, isReadOnly: true, serial: "", queues: 1).configuration()[..<8]) == bytes(UInt64(2)))
    }
}
