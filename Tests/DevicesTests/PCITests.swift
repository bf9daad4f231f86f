import Testing

@testable import Devices

@Suite struct `A PCI configuration space` {
    private let identity = PCIIdentity(vendor: 0x1AF4, device: 0x1042, subsystemVendor: 1, subsystem: 2, revision: 3, classCode: 0x01_8000)

    @Test func `says what it is, and that cannot be changed`() {
        var space = PCIConfigurationSpace(identity)
        for offset in stride(from: 0, to: PCIConfigurationSpace.size, by: 4) where offset != PCIRegister.command {
            space.write(.max, at: offset, size: 4)
        }
        #expect(space.read(at: 0, size: 4) == 0x1042_1AF4)
        #expect(space.read(at: 8, size: 4) == 0x0180_0003)
        #expect(space.read(at: 0x2C, size: 4) == 0x0002_0001)
        #expect(space.read(at: 0x0E, size: 1) == 0)
        #expect(space.read(at: 0x3C, size: 4) == 0xFF, "the interrupt line is a note of the guest's, the pin is not")
        #expect(space.read(at: 4, size: 4) == 0)
        space.write(.max, at: 4, size: 4)
        #expect(space.read(at: 4, size: 4) == UInt32(PCICommand.all.rawValue))
    }

    @Test(arguments: [16, 4096, 0x8000, 1 << 30] as [UInt64], [false, true])
    func `tells the size of a BAR to whoever writes ones`(size: UInt64, is64Bit: Bool) {
        let bar = PCIBar(index: 2, size: size, is64Bit: is64Bit, isPrefetchable: is64Bit)
        var space = PCIConfigurationSpace(identity, bars: [bar])
        let flags: UInt32 = is64Bit ? 0xC : 0
        #expect(space.read(at: 0x18, size: 4) == flags)
        space.write(.max, at: 0x18, size: 4)
        space.write(.max, at: 0x1C, size: 4)
        #expect(space.read(at: 0x18, size: 4) == UInt32(truncatingIfNeeded: ~(size - 1)) | flags)
        #expect(space.read(at: 0x1C, size: 4) == (is64Bit ? .max : 0))
        space.write(UInt32(PCICommand.memory.rawValue), at: 4, size: 2)
        #expect(space.address(of: bar) == nil, "all ones is no place")
        space.place(bar, at: size << 1)
        #expect(space.address(of: bar) == size << 1)
        space.write(0, at: 4, size: 2)
        #expect(space.address(of: bar) == nil && space.base(of: bar) == size << 1)
    }

    @Test func `has its capabilities in a list`() {
        var space = PCIConfigurationSpace(identity)
        #expect(space.read(at: 6, size: 2) == 0)
        let first = space.addCapability(0x11, [1, 2, 3])
        let second = space.addCapability(0x09, [4], writable: [0x0F])
        #expect(space.read(at: 6, size: 2) == 0x10)
        #expect(space.read(at: 0x34, size: 1) == UInt32(first))
        #expect(space.read(at: first, size: 2) == UInt32(second) << 8 | 0x11)
        #expect(space.read(at: second, size: 4) == 0x0004_0009)
        space.write(.max, at: second, size: 4)
        #expect(space.read(at: second, size: 4) == 0x000F_0009)
        #expect(second % 4 == 0)
    }

    @Test func `is what it was after its changeable bytes were put into another one`() {
        var space = PCIConfigurationSpace(identity, bars: [PCIBar(index: 0, size: 4096, is64Bit: true)])
        for offset in 0..<256 { space.write(UInt32(offset * 37 & 0xFF), at: offset, size: 1) }
        var other = PCIConfigurationSpace(identity, bars: [PCIBar(index: 0, size: 4096, is64Bit: true)])
        other.changeable = space.changeable
        for offset in 0..<256 { #expect(other.read(at: offset, size: 1) == space.read(at: offset, size: 1)) }
        #expect(other.fixed == space.fixed)
    }
}

@Suite struct `A PCI bus` {
    @Test func `is found by both ways, with every width`() throws {
        let bench = try FunctionBench()
        #expect(bench.configuration(0) == 0x1042_1AF4)
        for size in [1, 2, 4] {
            for offset in stride(from: 0, to: 256, by: size) {
                bench.bus.write(0x8000_0800 | UInt32(offset & 0xFC), port: 0xCF8, size: 4)
                let byPort = bench.bus.read(port: 0xCFC + UInt16(offset & 3), size: size) & UInt32.max >> UInt32(32 - 8 * size)
                #expect(byPort == bench.configuration(offset, size))
            }
        }
    }

    @Test func `reads as ones where nothing is`() throws {
        let bench = try FunctionBench()
        #expect(bench.memoryBus.read(address: 0xE001_0000, size: 4) & 0xFFFF_FFFF == 0xFFFF_FFFF, "no device 2")
        #expect(bench.memoryBus.read(address: 0xE000_9000, size: 4) & 0xFFFF_FFFF == 0xFFFF_FFFF, "no function 1")
        bench.bus.write(0x8001_0800, port: 0xCF8, size: 4)
        #expect(bench.bus.read(port: 0xCFC, size: 4) == .max, "no bus 1")
        bench.bus.write(0x0000_0800, port: 0xCF8, size: 4)
        #expect(bench.bus.read(port: 0xCFC, size: 4) == .max, "not enabled")
        #expect(bench.configuration(0x100) == 0, "no extended capabilities")
    }

    @Test func `takes the address by 32 bits only, and leaves the reset port alone`() throws {
        let bench = try FunctionBench()
        let requests = RecordedRequests()
        let power = PowerDevice(observer: requests, interrupt: InterruptLine(9, of: RecordedInterrupts()))
        let ports = PortBus([ResetPort(power: power)], wide: [bench.bus])
        ports.write(0x8000_0E06, port: 0xCF8, size: 4)
        #expect(ports.read(port: 0xCF8, size: 4) == 0x8000_0E04, "the lowest two bits are none of its own")
        #expect(requests.all.isEmpty)
        ports.write(0xFF, port: 0xCF8, size: 1)
        ports.write(0xFFFF, port: 0xCFA, size: 2)
        #expect(ports.read(port: 0xCF8, size: 4) == 0x8000_0E04)
        ports.write(0x06, port: 0xCF9, size: 1)
        #expect(requests.all == [.reset])
    }

    @Test func `gives BARs their places in order, aligned`() throws {
        var allocator = PCIBarAllocator(0xC000_1000..<0xC010_0000)
        #expect(allocator.allocate(0x8000) == 0xC000_8000)
        #expect(allocator.allocate(16) == 0xC001_0000)
        #expect(allocator.allocate(4096) == 0xC001_1000)
        #expect(allocator.allocate(1 << 20) == nil, "there is no room left")
        #expect(allocator.allocate(1 << 19) == 0xC008_0000)
    }

    @Test func `moves a BAR and its doorbells with the guest's writes`() throws {
        let bench = try FunctionBench()
        bench.bus.placeBars(in: 0xC000_0000..<0xC010_0000)
        #expect(bench.configuration(0x10) == 0xC000_0000 && bench.function.placement == nil && bench.doorbells.hung.isEmpty)
        bench.setConfiguration(2, 4, 2)
        #expect(bench.function.placement == 0xC000_0000 && bench.doorbells.hung == [0xC000_3000, 0xC000_3004])
        #expect(bench.memoryBus.read(address: 0xC000_0012, size: 2) == 2)
        bench.setConfiguration(0xD000_8000, 0x10)
        #expect(bench.function.placement == 0xD000_8000 && bench.doorbells.hung == [0xD000_B000, 0xD000_B004])
        #expect(bench.memoryBus.read(address: 0xC000_0012, size: 2) == .max)
        #expect(bench.memoryBus.read(address: 0xD000_8012, size: 2) == 2)
        bench.setConfiguration(.max, 0x10)
        #expect(bench.function.placement == nil && bench.doorbells.hung.isEmpty, "a BAR that is being sized is nowhere")
        #expect(bench.configuration(0x10) == 0xFFFF_8000)
        bench.setConfiguration(0xC000_8000, 0x10)
        bench.setConfiguration(0, 4, 2)
        #expect(bench.function.placement == nil && bench.doorbells.hung.isEmpty)
    }

    @Test func `hangs up no doorbell again that the next worker has where it is to be`() throws {
        let bench = try FunctionBench()
        bench.drive()
        let next = try FunctionBench()
        next.function.anticipate(try #require(bench.function.placement))
        let calls = next.doorbells.calls
        #expect(calls == 2 && next.doorbells.hung == bench.doorbells.hung)
        next.function.restore(bench.function.state)
        #expect(next.doorbells.calls == calls && next.function.state == bench.function.state)
        bench.setConfiguration(0xC400_0000, 0x10)
        next.function.restore(bench.function.state)
        #expect(next.doorbells.hung == [0xC400_3000, 0xC400_3004])
    }
}

@Suite struct `An MSI-X table` {
    private let messages = RecordedMessages()
    private let table: MSIXTable

    init() {
        table = MSIXTable(count: 70, sink: messages)
        for vector in 0..<70 {
            table.writeTable(0xFEE0_1000 + UInt64(vector) << 32, at: 16 * vector, size: 8)
            table.writeTable(UInt64(1000 + vector), at: 16 * vector + 8, size: 8)  // and unmasks it
        }
    }

    private func pending(_ vector: Int) -> Bool { table.readPending(at: vector / 64 * 8, size: 8) >> UInt64(vector % 64) & 1 == 1 }

    @Test func `sends what a vector says`() {
        table.setControl(isEnabled: true, isMasked: false)
        table.signal(69)
        table.signal(70)
        table.signal(0xFFFF)
        #expect(messages.all == [RecordedMessages.Message(address: 0xFEE0_1000 + 69 << 32, data: 1069)])
    }

    @Test func `sends nothing while it is disabled, not even later`() {
        table.signal(3)
        table.setControl(isEnabled: true, isMasked: false)
        #expect(messages.all.isEmpty && !pending(3))
    }

    @Test(arguments: [3, 66]) func `remembers what a masked vector had to send, once`(_ vector: Int) {
        table.setControl(isEnabled: true, isMasked: false)
        table.writeTable(1, at: 16 * vector + 12, size: 4)
        for _ in 0..<3 { table.signal(vector) }
        #expect(messages.all.isEmpty && pending(vector))
        table.writeTable(77, at: 16 * vector + 8, size: 4)
        table.writeTable(0, at: 16 * vector + 12, size: 4)
        #expect(messages.take().map(\.data) == [77] && !pending(vector))
        table.signal(vector)
        #expect(messages.all.count == 1)
    }

    @Test func `remembers what came while the function was masked`() {
        table.setControl(isEnabled: true, isMasked: true)
        table.writeTable(1, at: 16 * 5 + 12, size: 4)
        for vector in [69, 5, 1] { table.signal(vector) }
        #expect(messages.all.isEmpty && pending(69) && pending(5) && pending(1))
        table.setControl(isEnabled: true, isMasked: false)
        #expect(messages.take().map(\.data) == [1001, 1069] && pending(5), "the vector that is masked itself goes on waiting")
        table.setControl(isEnabled: false, isMasked: false)
        #expect(!pending(5))
    }

    @Test func `begins masked, and takes whole words only`() {
        let fresh = MSIXTable(count: 2, sink: messages)
        #expect(fresh.readTable(at: 12, size: 4) == 1)
        fresh.writeTable(0, at: 12, size: 1)
        fresh.writeTable(0, at: 12, size: 2)
        fresh.writeTable(.max, at: 14, size: 4)
        #expect(fresh.readTable(at: 8, size: 8) == 1 << 32)
        fresh.writeTable(.max, at: 0, size: 8)
        #expect(fresh.readTable(at: 0, size: 8) == UInt64.max - 3, "the lowest bits of an address are zero")
        fresh.writeTable(.max, at: 12, size: 4)
        #expect(fresh.readTable(at: 12, size: 4) == 1)
        for offset in [28, 32, 4096] { fresh.writeTable(.max, at: offset, size: 8) }
        #expect(fresh.readTable(at: 32, size: 8) == 0)
    }

    @Test func `restored, sends nothing that was sent and forgets nothing that waits`() {
        table.setControl(isEnabled: true, isMasked: false)
        table.writeTable(1, at: 12, size: 4)
        table.signal(0)
        table.signal(1)
        #expect(messages.take().count == 1)
        let other = MSIXTable(count: 70, sink: messages)
        other.restore(table.state, isEnabled: true, isMasked: false)
        #expect(other.state == table.state && messages.all.isEmpty)
        other.writeTable(0, at: 12, size: 4)
        #expect(messages.all.map(\.data) == [1000])
    }
}
