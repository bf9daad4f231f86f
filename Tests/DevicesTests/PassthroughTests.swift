import Testing

@testable import Devices

@Suite struct `A passed-through function's configuration space` {
    @Test func `shows who the device is and what a driver needs, and hides the rest`() {
        let bench = PassthroughBench()
        #expect(bench.get(0, 4) == 0x10D3_8086)
        #expect(bench.get(8, 4) == 0x0200_0003)
        #expect(bench.get(0x2C, 4) == 0xA01F_8086)
        #expect(bench.get(0x30, 4) == 0, "the ROM")
        #expect(bench.get(0x18, 4) == 0, "ports")
        #expect(bench.get(0x100, 4) == 0, "the extended space")
        var chain: [Int] = []
        var next = Int(bench.get(0x34, 1))
        while next != 0 {
            chain.append(next)
            next = Int(bench.get(next + 1, 1))
        }
        #expect(chain == [HostDevice.power, HostDevice.messages, HostDevice.extended, HostDevice.express, HostDevice.vendor])
        #expect(bench.get(6, 2) & 0x10 != 0)
        #expect(bench.get(HostDevice.vital, 4) == 0)
    }

    @Test func `an Express endpoint is integrated, without a link`() {
        let bench = PassthroughBench()
        #expect(bench.get(HostDevice.express + 2, 2) == 0x92)
        #expect(bench.get(HostDevice.express + 0x0C, 4) == 0)
    }

    @Test func `MSI has no masks, and as many vectors as there are events`() {
        #expect(PassthroughBench().get(HostDevice.messages + 2, 2) == 0x84)
    }

    @Test func `BARs tell their sizes, and have the places firmware gave them`() {
        let bench = PassthroughBench()
        #expect(bench.get(0x10, 4) == 0xC000_0000)
        #expect(bench.get(0x14, 4) == 0xC000_8008)
        #expect(UInt64(bench.get(0x20, 4) & ~0xF) | UInt64(bench.get(0x24, 4)) << 32 == 0x10_0000_0000)
        bench.set(.max, 0x10, 4)
        #expect(bench.get(0x10, 4) == 0xFFFF_8000)
        bench.set(.max, 0x20, 4)
        bench.set(.max, 0x24, 4)
        #expect(bench.get(0x20, 4) == 0xC && bench.get(0x24, 4) == 0xFFFF_FFFE)
    }

    @Test func `what is emulated does not reach the device, and the device's own does`() {
        let bench = PassthroughBench()
        _ = bench.device.takeHistory()
        for (offset, size) in [(0x10, 4), (0x14, 4), (0x3C, 1), (0x0C, 1), (HostDevice.messages + 4, 4), (HostDevice.extended + 4, 4)] {
            bench.set(0x55AA_55AA, offset, size)
        }
        #expect(bench.device.takeHistory() == [])
        bench.set(0x3, HostDevice.power + 4, 2)
        bench.set(0x8000_2010, HostDevice.express + 8, 4)
        bench.set(0xF900_0146, 4, 4)
        #expect(bench.device.takeHistory() == ["44.2=3", "78.4=80002010", "6.2=f900", "4.2=146"])
        #expect(bench.get(4, 2) == 0x146)
    }

    @Test func `power-on takes memory, DMA and interrupts away from the device, and arms its line`() {
        let bench = PassthroughBench(powerOn: false)
        #expect(bench.device.history == [])
        bench.function.powerOn()
        #expect(bench.device.takeHistory() == ["disarm extended", "disarm message", "disarm line", "4.2=0", "disarm none", "arm line 1"])
    }

    @Test func `the next worker's has the same fixed part, whatever the device has been doing`() {
        let bench = PassthroughBench()
        bench.drive()
        #expect(PassthroughBench(bench.device, powerOn: false).function.fixedConfiguration == bench.function.fixedConfiguration)
    }
}

@Suite struct `A passed-through function's memory` {
    @Test func `comes and goes with the command register, without the pages of MSI-X`() {
        let bench = PassthroughBench()
        #expect(bench.guest.takePlaces() == [])
        bench.set(2, 4, 2)
        #expect(bench.guest.takePlaces() == ["0 [0-2000 4000-8000] c0000000", "1 [] c0008000", "4 [0-200000000] 1000000000"])
        #expect(bench.function.placements == [0xC000_0000, 0xC000_8000, 0x10_0000_0000])
        bench.set(0xC100_0000, 0x10, 4)
        #expect(bench.guest.takePlaces() == ["0 [0-2000 4000-8000] away", "0 [0-2000 4000-8000] c1000000"])
        bench.set(0, 4, 2)
        #expect(bench.guest.takePlaces().allSatisfy { $0.hasSuffix("away") })
    }

    @Test func `is there for the next worker before the state comes, which then moves nothing`() {
        let bench = PassthroughBench()
        bench.drive()
        let next = PassthroughBench(bench.device, powerOn: false)
        next.function.anticipate(bench.function.placements)
        #expect(next.guest.takePlaces().count == 3)
        next.function.restore(bench.function.state())
        #expect(next.guest.takePlaces() == [])
        #expect(bench.guest.shared == ["0 true", "1 true", "4 true"])
        #expect(next.guest.shared == [], "other devices still reach it")
    }

    @Test func `is the device's where no slot is`() throws {
        let bench = PassthroughBench()
        bench.set(2, 4, 2)
        let window = try #require(bench.function.windows.first)
        window.device.write(7, at: 0x2100, size: 4)
        #expect(bench.device.read(bar: 0, at: 0x2100, size: 4) == 7)
        #expect(window.device.read(at: 0x2100, size: 4) == 7)
    }
}

@Suite struct `A passed-through function's interrupts` {
    @Test func `lead where they led before the state comes, which then leads none elsewhere but those that have changed`() {
        let bench = PassthroughBench()
        bench.drive()
        let next = PassthroughBench(bench.device, powerOn: false)
        next.function.anticipate(bench.function.placements, bench.function.messages)
        #expect(next.guest.routed == [[0, 1, 2, 3]])
        next.function.restore(bench.function.state())
        #expect(next.guest.routed.count == 1)
        let last = PassthroughBench(bench.device, powerOn: false)
        last.function.anticipate(bench.function.placements, bench.function.messages)
        bench.function.write(0xFEE0_2000, bar: 0, at: 0x2010, size: 8)
        bench.setMessage(4)
        last.function.restore(bench.function.state())
        #expect(last.guest.routed == [[0, 1, 2, 3], [1, 4]])
    }

    @Test func `lead nowhere before the state comes where a blueprint names vectors that there are not`() {
        let next = PassthroughBench(powerOn: false)
        next.function.anticipate([], [5, -1, 70_000].map { VectorMessage(vector: $0, message: PassthroughBench.message(0)) })
        #expect(next.guest.routed == [])
    }

    @Test func `arrive where the guest wants them`() {
        let bench = PassthroughBench()
        bench.drive()
        #expect(bench.device.history.suffix(2) == ["disarm line", "arm extended 5"])
        bench.device.raise(0)
        bench.device.raise(3)
        #expect(bench.guest.takeMessages() == [PassthroughBench.message(0), PassthroughBench.message(3)])
    }

    @Test func `that are masked are pending, and come once`() {
        let bench = PassthroughBench()
        bench.drive()
        for _ in 0..<3 { bench.device.raise(4) }
        #expect(bench.pending == 1 << 4)
        bench.mask(4, false)
        #expect(bench.guest.takeMessages() == [PassthroughBench.message(4)])
        #expect(bench.pending == 0)
        bench.set(0xC000, HostDevice.extended + 2, 2)
        bench.device.raise(1)
        #expect(bench.guest.takeMessages().isEmpty && bench.pending == 2)
        bench.set(0x8000, HostDevice.extended + 2, 2)
        #expect(bench.guest.takeMessages() == [PassthroughBench.message(1)])
    }

    @Test func `of MSI arrive with the vector in their data`() {
        let bench = PassthroughBench()
        bench.set(0xFEE0_2000, HostDevice.messages + 4, 4)
        bench.set(0x4050, HostDevice.messages + 12, 2)
        bench.set(0x21, HostDevice.messages + 2, 2)
        #expect(bench.device.history.last == "arm message 4")
        bench.device.raise(2)
        #expect(bench.guest.takeMessages() == [PCIMessage(address: 0xFEE0_2000, data: 0x4052)])
        bench.set(0xFEE0_3000, HostDevice.messages + 4, 4)
        bench.device.raise(0)
        #expect(bench.guest.takeMessages() == [PCIMessage(address: 0xFEE0_3000, data: 0x4050)])
    }

    @Test func `of the line fire once until they are ended, and none is left over for MSI-X`() {
        let bench = PassthroughBench()
        bench.device.isAsserted = true
        bench.device.isAsserted = true
        #expect(bench.guest.takeLineInterrupts() == 1)
        bench.guest.endOfInterrupt()
        #expect(bench.guest.takeLineInterrupts() == 1, "still asserted")
        bench.function.stop()
        bench.guest.endOfInterrupt()
        bench.device.isAsserted = false
        bench.device.isAsserted = true
        bench.drive()
        bench.function.resume()
        #expect(bench.guest.takeMessages().isEmpty && bench.guest.takeLineInterrupts() == 0)
    }
}

@Suite struct `A handover of a passed-through function` {
    @Test func `loses and doubles no message, and the device does not notice`() {
        let bench = PassthroughBench()
        bench.drive()
        bench.function.quiesce()
        #expect(bench.guest.attached == [])
        for vector in [0, 0, 2, 4] { bench.device.raise(vector) }
        bench.function.quiesce()
        _ = bench.device.takeHistory()
        let next = bench.successor()
        #expect(next.guest.attached == [])
        bench.device.raise(1)
        next.function.resume()
        #expect(next.guest.takeMessages() == [0, 1, 2].map { PassthroughBench.message($0) })
        #expect(next.pending == 1 << 4)
        next.mask(4, false)
        #expect(next.guest.takeMessages() == [PassthroughBench.message(4)])
        next.device.raise(3)
        #expect(next.guest.takeMessages() == [PassthroughBench.message(3)])
        #expect(bench.device.history == [])
        #expect(bench.guest.takeMessages().isEmpty)
    }

    @Test func `that is aborted gives the old worker what came meanwhile`() {
        let bench = PassthroughBench()
        bench.drive()
        bench.function.quiesce()
        _ = bench.successor()
        bench.device.raise(2)
        bench.function.resume()
        bench.function.resume()
        #expect(bench.guest.takeMessages() == [PassthroughBench.message(2)])
    }

    @Test func `takes along what the guest does to its vectors until it is stopped`() {
        let bench = PassthroughBench()
        bench.drive()
        bench.function.quiesce()
        bench.mask(0, true)
        bench.mask(4, false)
        bench.function.write(0x77, bar: 0, at: 0x2008 + 16, size: 4)
        #expect(bench.guest.attached == [], "nothing is attached in between")
        for vector in [0, 1, 4] { bench.device.raise(vector) }
        let next = bench.successor()
        next.function.resume()
        #expect(next.guest.takeMessages() == [PCIMessage(address: 0xFEE0_1000, data: 0x77), PassthroughBench.message(4)])
        #expect(next.pending == 1)
    }

    @Test func `with the driver starting in the middle of it`() {
        let bench = PassthroughBench()
        bench.function.quiesce()
        bench.drive()
        bench.device.raise(1)
        #expect(bench.guest.attached == [])
        let next = bench.successor()
        next.function.resume()
        #expect(next.guest.takeMessages() == [PassthroughBench.message(1)])
    }

    @Test func `unmasks a line whose end of interrupt went by unnoticed`() {
        let bench = PassthroughBench()
        bench.device.isAsserted = true
        #expect(bench.guest.takeLineInterrupts() == 1)
        bench.function.stop()
        bench.device.isAsserted = false  // served, and ended while nobody listens
        bench.guest.endOfInterrupt()
        let next = bench.successor()
        next.function.resume()
        #expect(bench.device.history.last == "unmask")
        #expect(next.guest.takeLineInterrupts() == 0)
        bench.device.isAsserted = true
        #expect(next.guest.takeLineInterrupts() == 1)
    }

    @Test func `does not let a line fire twice that is being served`() {
        let bench = PassthroughBench()
        bench.device.isAsserted = true
        #expect(bench.guest.takeLineInterrupts() == 1)
        bench.function.stop()
        _ = bench.device.takeHistory()
        let next = bench.successor()
        next.function.resume()
        #expect(bench.device.takeHistory() == [], "its end is still to come")
        bench.device.isAsserted = false
        next.guest.endOfInterrupt()
        #expect(next.guest.takeLineInterrupts() == 0)
        bench.device.isAsserted = true
        #expect(next.guest.takeLineInterrupts() == 1)
    }

    @Test func `delivers a line that fired meanwhile, once`() {
        let bench = PassthroughBench()
        bench.function.stop()
        _ = bench.device.takeHistory()
        bench.device.isAsserted = true
        let next = bench.successor()
        next.function.resume()
        #expect(next.guest.takeLineInterrupts() == 1)
        #expect(bench.device.history.last != "unmask", "its end is going to be noticed")
        bench.device.isAsserted = false
        next.guest.endOfInterrupt()
        #expect(next.guest.takeLineInterrupts() == 0)
        bench.device.isAsserted = true
        #expect(next.guest.takeLineInterrupts() == 1)
    }

    @Test func `lets a line fire and be ended until the vCPUs have stopped`() {
        let bench = PassthroughBench()
        bench.function.quiesce()
        bench.device.isAsserted = true
        #expect(bench.guest.takeLineInterrupts() == 1)
        bench.device.isAsserted = false
        bench.guest.endOfInterrupt()
        bench.device.isAsserted = true
        #expect(bench.guest.takeLineInterrupts() == 1, "its end was noticed")
        bench.function.stop()
        let next = bench.successor()
        next.function.resume()
        bench.device.isAsserted = false
        next.guest.endOfInterrupt()
        bench.device.isAsserted = true
        #expect(next.guest.takeLineInterrupts() == 1)
    }

    @Test func `that ends before the vCPUs have stopped has not touched the line`() {
        let bench = PassthroughBench()
        bench.device.isAsserted = true
        _ = bench.device.takeHistory()
        bench.function.quiesce()
        bench.function.resume()
        #expect(bench.guest.takeLineInterrupts() == 1 && bench.device.takeHistory() == [])
    }

    @Test func `leaves a line alone that the guest has disabled`() {
        let bench = PassthroughBench()
        bench.set(0x0400, 4, 2)
        bench.function.stop()
        _ = bench.device.takeHistory()
        bench.successor().function.resume()
        #expect(bench.device.takeHistory() == [])
    }

    @Test func `refuses the state of another device`() {
        let bench = PassthroughBench()
        var state = bench.function.state()
        state.table.removeLast(4)
        #expect(!bench.function.accepts(state))
        state = bench.function.state()
        state.registers.append(0)
        #expect(!bench.function.accepts(state))
    }
}
