import Checkpoint
import Devices
import Testing

@Suite struct `The power device` {
    private let requests = RecordedRequests()
    private let interrupts = RecordedInterrupts()
    private let power: PowerDevice
    private let bus: PortBus

    init() {
        power = PowerDevice(observer: requests, interrupt: InterruptLine(9, of: interrupts))
        bus = PortBus([power])
    }

    private func read(_ port: UInt16) -> UInt32 { bus.read(port: port, size: 2) & 0xFFFF }

    @Test func `sleep type 5 with the enable bit switches off, nothing else does`() {
        for value in [1, 2, 0x1400, 0x2000, 0x3000, 0x2400, 0x1C00] as [UInt32] { bus.write(value, port: 0x604, size: 2) }
        #expect(requests.all == [] && power.request == nil)
        bus.write(0x3401, port: 0x604, size: 2)
        bus.write(0x3401, port: 0x604, size: 2)
        #expect(requests.all == [.powerOff] && power.request == .powerOff)
        power.take(.reset)
        #expect(requests.all == [.powerOff], "the first request stands")
    }

    @Test func `is in ACPI mode, and keeps the sleep type`() {
        #expect(read(0x604) == 1)
        bus.write(0x3FFE, port: 0x604, size: 2)
        #expect(read(0x604) == 0x1C03)
        bus.write(0, port: 0x604, size: 2)
        #expect(read(0x604) == 1)
    }

    @Test func `the button interrupts when and as long as it is pressed and enabled`() {
        bus.write(0x100, port: 0x602, size: 2)
        #expect(!interrupts.level(9) && read(0x600) == 0)
        power.askForPowerOff()
        #expect(interrupts.level(9) && read(0x600) == 0x100)
        power.askForPowerOff()
        bus.write(0, port: 0x602, size: 2)
        #expect(!interrupts.level(9) && read(0x600) == 0x100)
        bus.write(0x100, port: 0x602, size: 2)
        #expect(interrupts.level(9))
        bus.write(0xFEFF, port: 0x600, size: 2)
        #expect(interrupts.level(9), "only writing its own bit clears it")
        bus.write(0x100, port: 0x600, size: 2)
        #expect(!interrupts.level(9) && read(0x600) == 0)
    }

    @Test func `the enable bits of fixed events keep what is written`() {
        bus.write(0xFFFF, port: 0x602, size: 2)
        #expect(read(0x602) == 0x0721 && !interrupts.level(9))
        bus.write(0, port: 0x603, size: 1)
        #expect(read(0x602) == 0x0021)
        #expect(bus.read(port: 0x600, size: 4) == 0x0021_0000, "status and enable at once")
    }

    @Test func `a request that nobody has followed yet goes along`() throws {
        bus.write(0x3400, port: 0x604, size: 2)
        let next = PowerDevice(observer: requests, interrupt: InterruptLine(9, of: interrupts))
        next.restore(try roundTrip(power.state(), version: 2))
        #expect(next.request == .powerOff && requests.all == [.powerOff])
    }

    @Test func `a pressed button goes along, and its interrupt is not raised again`() throws {
        bus.write(0x100, port: 0x602, size: 2)
        power.askForPowerOff()
        let others = RecordedInterrupts()
        let next = PowerDevice(observer: requests, interrupt: InterruptLine(9, of: others))
        next.restore(try roundTrip(power.state(), version: 2))
        #expect(others.edges(9) == 0 && next.read(port: 0x601) == 1)
        next.write(1, port: 0x601)
        #expect(next.read(port: 0x601) == 0 && !others.level(9))
    }

    @Test func `version 1 of its section, which only knew that the operator asks, is still read`() throws {
        let bytes = try DeviceCases.golden("power-1")
        let state = try PowerState(from: CheckpointReader(bytes, expecting: nil, understanding: [PowerState.section]))
        #expect(state.status == 0x100 && state.enable == 0 && state.request == .reset)
        for length in 0..<bytes.count {
            #expect(throws: CheckpointError.self) {
                _ = try PowerState(from: CheckpointReader(Array(bytes[..<length]), expecting: nil, understanding: [PowerState.section]))
            }
        }
    }
}

@Suite struct `The reset ports` {
    private let requests = RecordedRequests()
    private let reset: ResetPort

    init() { reset = ResetPort(power: PowerDevice(observer: requests, interrupt: InterruptLine(9, of: RecordedInterrupts()))) }

    @Test func `the keyboard controller's pulse resets, nothing else does`() {
        reset.write(0xD1, port: 0x64)
        #expect(requests.all == [])
        reset.write(0xFE, port: 0x64)
        #expect(requests.all == [.reset])
        #expect(reset.read(port: 0x64) == 0xFD)
    }

    @Test func `the reset register resets on a rising bit 2`() {
        reset.write(0x02, port: 0xCF9)
        #expect(requests.all == [] && reset.read(port: 0xCF9) == 0x02)
        reset.write(0x06, port: 0xCF9)
        #expect(requests.all == [.reset])
    }
}

@Suite struct `The clock chip` {
    private let time = ManualTime(wall: 951_827_696_000_000_000)  // 2000-02-29 12:34:56 UTC, a Tuesday
    private let rtc: CMOSRTC

    init() { rtc = CMOSRTC(time: time) }

    private func register(_ index: UInt8) -> UInt8 {
        rtc.write(index, port: 0x70)
        return rtc.read(port: 0x71)
    }

    @Test func `tells the host's date in BCD`() {
        #expect([0, 2, 4, 6, 7, 8, 9, 0x32].map(register) == [0x56, 0x34, 0x12, 0x03, 0x29, 0x02, 0x00, 0x20])
    }

    @Test(
        arguments: [
            (0, [0x70, 0x01, 0x01, 0x05]), (68_255_999, [0x72, 0x02, 0x29, 0x03]), (1_709_164_800, [0x24, 0x02, 0x29, 0x05]),
            (1_735_689_599, [0x24, 0x12, 0x31, 0x03]), (4_107_542_400, [0x00, 0x03, 0x01, 0x02]),
        ] as [(Int64, [UInt8])])
    func `knows leap days and year ends`(seconds: Int64, expected: [UInt8]) {
        time.setWall(seconds * 1_000_000_000)
        #expect([9, 8, 7, 6].map(register) == expected)
    }

    @Test func `announces the end of a second`() {
        #expect(register(0x0A) & 0x80 == 0)
        time.setWall(time.wall() + 999_800_000)
        #expect(register(0x0A) & 0x80 == 0x80)
    }

    @Test func `keeps memory and does not let the clock be set`() {
        rtc.write(0x10, port: 0x70)
        rtc.write(0xAB, port: 0x71)
        rtc.write(0x09, port: 0x70)
        rtc.write(0x99, port: 0x71)
        #expect(register(0x90) == 0xAB, "bit 7 of the index is NMI's")
        #expect(register(0x09) == 0x00 && register(0x0D) == 0x80)
    }
}

@Suite struct `The port bus` {
    private let requests = RecordedRequests()

    @Test func `what no device has reads as ones, and writes to it are counted`() {
        let bus = PortBus([PowerDevice(observer: requests, interrupt: InterruptLine(9, of: RecordedInterrupts()))])
        #expect(bus.read(port: 0x80, size: 1) & 0xFF == 0xFF)
        #expect(bus.read(port: 0xCFC, size: 4) == .max)
        bus.write(1, port: 0x5FF, size: 4)
        #expect(bus.ignoredWrites == 1 && requests.all == [])
    }

    @Test func `a wide access goes byte by byte as far as the device reaches`() {
        let serial = Serial8250(interrupt: InterruptLine(4, of: RecordedInterrupts()), sink: RecordedSink(), time: ManualTime())
        let bus = PortBus([serial, PowerDevice(observer: requests, interrupt: InterruptLine(9, of: RecordedInterrupts()))])
        bus.write(0x5A03, port: 0x3FE, size: 2)
        #expect(serial.read(port: 0x3FF) == 0x5A)
        #expect(bus.read(port: 0x3FF, size: 4) == 0xFFFF_FF5A)
    }

    @Test func `a PCI configuration address does not reset the machine`() {
        let bus = PortBus([ResetPort(power: PowerDevice(observer: requests, interrupt: InterruptLine(9, of: RecordedInterrupts())))])
        bus.write(0x8000_0600, port: 0xCF8, size: 4)
        #expect(requests.all == [])
        bus.write(0x06, port: 0xCF9, size: 1)
        #expect(requests.all == [.reset])
    }

    @Test func `the last port does not wrap`() {
        let bus = PortBus([])
        bus.write(0, port: 0xFFFF, size: 4)
        #expect(bus.read(port: 0xFFFF, size: 4) == .max)
    }
}
