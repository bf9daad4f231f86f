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
