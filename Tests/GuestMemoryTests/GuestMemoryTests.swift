import GuestMemory
import LinuxSystem
import SystemPackage
import Testing

@Suite struct `Guest memory layout` {
    @Test func `up to three gigabytes are one region from zero`() {
        let layout = GuestMemoryLayout(size: 3 << 30)
        #expect(layout.regions == [GuestRegion(address: 0, offset: 0, length: 3 << 30)])
    }

    @Test func `what is over three gigabytes begins at four`() {
        let layout = GuestMemoryLayout(size: 5 << 30)
        #expect(
            layout.regions == [GuestRegion(address: 0, offset: 0, length: 3 << 30), GuestRegion(address: 4 << 30, offset: 3 << 30, length: 2 << 30)])
        #expect(layout.offset(of: 4 << 30, count: 1) == 3 << 30)
        #expect(layout.offset(of: (6 << 30) - 1, count: 1) == (5 << 30) - 1)
    }

    @Test func `a stretch of the object over three gigabytes has addresses on both sides of the device hole`() {
        let layout = GuestMemoryLayout(size: 5 << 30)
        let low: Range<UInt64> = 0xBFFF_F000..<0xC000_0000
        let high: Range<UInt64> = 0x1_0000_0000..<0x1_0000_2000
        #expect(layout.addresses(of: 0xBFFF_F000..<0xC000_0000) == [low])
        #expect(layout.addresses(of: 0xBFFF_F000..<0xC000_2000) == [low, high])
        #expect(layout.addresses(of: 5 << 30..<6 << 30).isEmpty)
    }

    @Test(
        arguments: [
            (3 << 30, 1), ((3 << 30) - 1, 2), ((4 << 30) - 1, 1), ((4 << 30) - 1, 2), (6 << 30, 1), (UInt64.max, 1), (0, Int.max), (0, -1),
            (UInt64.max, Int.max),
        ] as [(UInt64, Int)])
    func `what is not RAM has no offset`(address: UInt64, count: Int) {
        #expect(GuestMemoryLayout(size: 5 << 30).offset(of: address, count: count) == nil)
    }
}

@Suite final class `Guest memory` {
    let object: MemoryDescriptor
    let memory: GuestMemory

    init() throws {
        object = try MemoryDescriptor(name: "ram", size: 64 << 10)
        memory = GuestMemory(GuestMemoryLayout(size: 64 << 10), mapping: try SharedMapping(of: object.descriptor, length: 64 << 10))
    }

    @Test func `bytes and integers come back as they were written`() throws {
        try memory.write([1, 2, 3, 4, 5], at: 0xFFFB)
        #expect(try memory.read(at: 0xFFFB, count: 5) == [1, 2, 3, 4, 5])
        try memory.write(integer: UInt32(0x1122_3344), at: 0x7FFE)
        #expect(try memory.read(at: 0x7FFE, count: 4) == [0x44, 0x33, 0x22, 0x11])
        #expect(try memory.read(UInt16.self, at: 0x7FFF) == 0x2233)
    }

    @Test func `an access over the end is refused and writes nothing`() throws {
        #expect(throws: GuestMemoryError(address: 0xFFFE, count: 3)) { try memory.write([1, 2, 3], at: 0xFFFE) }
        #expect(try memory.read(at: 0xFFFE, count: 2) == [0, 0])
        #expect(throws: GuestMemoryError.self) { try memory.read(UInt64.self, at: 0xFFF9) }
        #expect(throws: GuestMemoryError.self) { try memory.read(at: .max, count: 1) }
    }

    @Test func `extents are where something was written`() throws {
        #expect(try object.descriptor.dataExtents() == [])
        try memory.write([1], at: 0x3000)
        try memory.write([1], at: 0x8000)
        #expect(try object.descriptor.dataExtents() == [0x3000..<0x4000, 0x8000..<0x9000])
    }

    @Test func `the digest tells content, place and change, and takes a hole for zeros`() throws {
        try memory.write([7], at: 0x3000)
        let first = memory.digest(try object.descriptor.dataExtents())
        try memory.write([0], at: 0x9000)  // allocates a page of zeros
        #expect(try object.descriptor.dataExtents().count == 2)
        #expect(memory.digest(try object.descriptor.dataExtents()) == first)
        #expect(memory.digest([0..<memory.layout.size]) == first)
        try memory.write([0], at: 0x3000)
        try memory.write([7], at: 0x4000)
        #expect(memory.digest([0..<memory.layout.size]) != first)
        try memory.write([0], at: 0x4000)
        try memory.write([7], at: 0x3001)
        #expect(memory.digest([0..<memory.layout.size]) != first)
    }

    @Test func `populating maps what exists, leaves holes and can be cancelled`() throws {
        try memory.write([1], at: 0x3000)
        let extents = try object.descriptor.dataExtents()
        #expect(try memory.populate(extents) == 0x1000)
        #expect(try object.descriptor.dataExtents() == extents)
        #expect(try memory.populate(extents, isCancelled: { true }) == 0)
    }

    @Test func `emptied, it reads as zeros and has no pages; prefaulted, it has all`() throws {
        try memory.write([1], at: 0x3000)
        try memory.empty()
        #expect(try object.descriptor.dataExtents() == [])
        #expect(try memory.read(at: 0x3000, count: 1) == [0])
        try memory.prefault()
        #expect(try object.descriptor.dataExtents() == [0..<memory.layout.size])
    }
}

@Suite final class `A list of guest memory` {
    let memory: GuestMemory
    var list: GuestVector

    init() throws {
        let object = try MemoryDescriptor(name: "ram", size: 64 << 10)
        memory = GuestMemory(GuestMemoryLayout(size: 64 << 10), mapping: try SharedMapping(of: object.descriptor, length: 64 << 10))
        list = GuestVector(memory)
    }

    private static func file(_ bytes: [UInt8]) throws -> OwnedDescriptor {
        let file = try MemoryDescriptor(name: "file", size: 0).takeDescriptor()
        try file.writeAll(bytes)
        return file
    }

    @Test func `what is not RAM is refused, and the list stays as it was`() throws {
        try list.append(0x1000, 16)
        #expect(throws: GuestMemoryError(address: 0xFFF8, count: 9)) { try list.append(0xFFF8, 9) }
        #expect(throws: GuestMemoryError.self) { try list.append(.max, 1) }
        #expect(throws: GuestMemoryError.self) { try list.append(0, -1) }
        #expect(list.count == 16 && list.partCount == 1)
    }

    @Test func `neighbours become one part, nothing becomes none`() throws {
        try list.append(0x1000, 16)
        try list.append(0x1010, 16)
        try list.append(0x2000, 0)
        try list.append(0x1000, 16)
        #expect(list.count == 48 && list.partCount == 2)
    }

    @Test func `integers and bytes across parts`() throws {
        try list.append(0x1000, 3)
        try list.append(0x3000, 1)
        try list.append(0x2000, 8)
        #expect(list.store([0, 1, 2, 3, 4, 5], at: 0))
        #expect(try memory.read(at: 0x1000, count: 3) == [0, 1, 2])
        #expect(try memory.read(at: 0x3000, count: 1) == [3])
        #expect(try memory.read(at: 0x2000, count: 2) == [4, 5])
        #expect(list.load(UInt32.self, at: 1) == 0x0403_0201)
        #expect(list.load(UInt32.self, at: 8) == 0 && list.load(UInt32.self, at: 9) == nil && list.load(UInt8.self, at: -1) == nil)
        #expect(!list.store(integer: UInt64(0), at: 5) && list.store(integer: UInt16(0x0908), at: 10))
        #expect(list.bytes(limit: 100) == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 8, 9])
        #expect(list.bytes(limit: 2) == [0, 1])
    }

    @Test func `bytes are dropped at both ends, across parts`() throws {
        for address in [0x1000, 0x3000, 0x2000] as [UInt64] { try list.append(address, 4) }
        list.store((0..<12).map { UInt8($0) }, at: 0)
        list.removeFirst(5)
        list.removeLast(4)
        #expect(list.bytes(limit: 100) == [5, 6, 7] && list.partCount == 1)
        try list.append(0x4000, 1)
        list.removeFirst(3)
        #expect(list.bytes(limit: 100) == [0])
        list.removeLast(100)
        #expect(list.count == 0 && list.partCount == 0)
        list.removeFirst(100)
        try list.append(0x1000, 1)
        #expect(list.bytes(limit: 9) == [0])
        list.removeAll()
        #expect(list.count == 0 && list.partCount == 0)
    }

    @Test func `a file is read into it and written from it`() throws {
        let content = (0..<100).map { UInt8($0) }
        let file = try Self.file(content)
        try list.append(0xFFF0, 16)
        try list.append(0x1000, 20)
        try list.read(from: file, at: 50)
        #expect(list.bytes(limit: 100) == Array(content[50..<86]))
        try list.write(to: file, at: 90)
        #expect(try file.read(upTo: 200, at: 0) == Array(content[..<90] + content[50..<86]))
    }

    @Test func `a file too short is an error, with as many parts as there may be`() throws {
        let file = try Self.file([1, 2, 3])
        try list.append(0, 4)
        #expect(throws: Errno.ioError) { try list.read(from: file, at: 0) }
        list.removeAll()
        try list.read(from: file, at: 0)
        let long = try Self.file([UInt8](repeating: 7, count: 3000))
        for part in 0..<1500 { try list.append(UInt64(part) * 4, 2) }
        #expect(list.partCount > GuestVector.maximumParts)
        try list.read(from: long, at: 0)
        #expect(list.bytes(limit: 3000) == [UInt8](repeating: 7, count: 3000))
        #expect(try memory.read(at: 0, count: 4) == [7, 7, 3, 0])
    }

    @Test func `a stream is read into it once, and written from it once`() throws {
        let pair = try UnixSocket.sequencedPair()
        let far = pair.far
        let near = pair.takeNear()
        try list.append(0x1000, 2)
        try list.append(0x2000, 6)
        list.store([1, 2, 3, 4, 5, 6, 7, 8], at: 0)
        #expect(try list.send(to: far.descriptor) == 8)
        list.removeFirst(1)
        #expect(try list.receive(from: near.descriptor) == 7)
        #expect(list.bytes(limit: 10) == [1, 2, 3, 4, 5, 6, 7])
    }
}
