import Devices
import Testing

@Suite struct `A serial port` {
    private let interrupts = RecordedInterrupts()
    private let sink = RecordedSink()
    private let time = ManualTime()
    private let port: Serial8250

    init() { port = Serial8250(interrupt: InterruptLine(4, of: interrupts), sink: sink, time: time) }

    private func read(_ offset: UInt16) -> UInt8 { port.read(port: 0x3F8 + offset) }
    private func write(_ value: UInt8, _ offset: UInt16) { port.write(value, port: 0x3F8 + offset) }
    private func send(_ text: String) { for byte in text.utf8 { write(byte, 0) } }

    @Test func `sends a line at its end`() {
        send("hello")
        #expect(sink.text == "")
        send("\n")
        #expect(sink.text == "hello\n")
    }

    @Test func `sends a beginning after two milliseconds and a long line in bursts`() {
        send("login: ")
        #expect(port.output.flushAt == time.monotonic() + 2_000_000)
        port.flushOutput()
        #expect(sink.text == "login: " && port.output.flushAt == nil)
        send(String(repeating: "x", count: 256))
        #expect(sink.text.count == 7 + 256)
    }

    @Test func `keeps what a full sink does not take, in order`() {
        sink.setRoom(3)
        send("one\ntwo\n")
        #expect(sink.text == "one" && port.output.isBlocked)
        sink.setRoom(.max)
        port.flushOutput()
        #expect(sink.text == "one\ntwo\n" && !port.output.isBlocked && port.dropped == 0)
    }

    @Test func `drops and counts beyond its limit only`() {
        sink.setRoom(0)
        for _ in 0..<Serial8250.outputLimit + 5 { write(0x0A, 0) }
        #expect(port.dropped == 5)
        sink.setRoom(.max)
        port.flushOutput()
        #expect(sink.text.utf8.count == Serial8250.outputLimit)
    }

    @Test func `drops and counts what a broken sink does not take`() {
        sink.breakDown()
        send("gone\n")
        #expect(port.dropped == 5 && !port.output.isBlocked)
    }

    @Test func `is always ready to send`() {
        #expect(read(5) == 0x60)
        send("x")
        #expect(read(5) == 0x60)
    }

    @Test func `interrupts when the transmitter is empty, until that was seen`() {
        write(0x02, 1)
        #expect(interrupts.level(4))
        #expect(read(2) == 0x02)
        #expect(!interrupts.level(4) && read(2) == 0x01)
        send("x")
        #expect(interrupts.level(4) && read(2) == 0x02 && !interrupts.level(4))
        #expect(interrupts.edges(4) == 2)
    }

    @Test func `receives into a FIFO of sixteen and says when more is lost`() {
        write(0x01, 2)
        #expect(port.room == 16)
        port.receive(Array("0123456789abcdefX".utf8))
        #expect(port.room == 0)
        #expect(read(5) == 0x63)
        #expect(read(5) == 0x61, "an overrun is told once")
        #expect((0..<16).map { _ in read(0) } == Array("0123456789abcdef".utf8))
        #expect(read(5) == 0x60)
    }

    @Test func `without FIFO the last byte overwrites`() {
        port.receive([1, 2])
        #expect(port.room == 0 && read(5) == 0x63 && read(0) == 2)
    }

    @Test func `interrupts for received bytes, by level or time-out`() {
        write(0x81, 2)  // trigger at 8
        write(0x01, 1)
        port.receive([1])
        #expect(interrupts.level(4) && read(2) == 0xCC)
        port.receive([2, 3, 4, 5, 6, 7, 8])
        #expect(read(2) == 0xC4)
        for _ in 0..<8 { _ = read(0) }
        #expect(!interrupts.level(4) && read(2) == 0xC1)
    }

    @Test func `gives an overrun the highest priority`() {
        write(0x05, 1)
        port.receive([1, 2])
        #expect(read(2) == 0x06)
        _ = read(5)
        #expect(read(2) == 0x04)
    }

    @Test func `clears the receiver when told or when the FIFOs are switched`() {
        write(0x01, 2)
        port.receive([1, 2])
        write(0x03, 2)
        #expect(read(5) == 0x60)
        port.receive([1])
        write(0x00, 2)
        #expect(read(5) == 0x60)
    }

    @Test func `keeps divisor, line control and scratch register`() {
        write(0x80, 3)
        write(0x34, 0)
        write(0x12, 1)
        #expect(read(0) == 0x34 && read(1) == 0x12)
        write(0x03, 3)
        write(0xA5, 7)
        #expect(read(3) == 0x03 && read(7) == 0xA5 && read(1) == 0 && sink.text == "")
    }

    @Test func `in loopback receives what it sends and shows its outputs as inputs`() {
        write(0x1F, 4)
        #expect(read(6) & 0xF0 == 0xF0)
        write(0x10, 4)
        #expect(read(6) == 0x0F, "CTS, DSR and DCD changed, RI ended")
        #expect(read(6) == 0)
        send("q")
        #expect(port.room == 0 && read(0) == UInt8(ascii: "q") && sink.text == "")
        write(0x00, 4)
        #expect(read(6) & 0xF0 == 0xB0, "outside there is a peer")
    }

    @Test func `tells when there is room again`() {
        port.receive([1])
        #expect(port.room == 0)
        _ = read(0)
        #expect(port.room == 1)
    }

    @Test func `restored, raises no line that was up and lowers it when the reason is gone`() {
        write(0x01, 1)
        port.receive([1])
        let state = port.state()
        let next = Serial8250(interrupt: InterruptLine(4, of: interrupts), sink: sink, time: time)
        next.restore(state)
        #expect(interrupts.edges(4) == 1 && interrupts.level(4))
        #expect(next.read(port: 0x3F8) == 1)
        #expect(!interrupts.level(4))
    }

    @Test func `written for an older reader, what was not sent is left out`() throws {
        sink.setRoom(0)
        send("lost\n")
        var state = port.state()
        #expect(state.unsent == Array("lost\n".utf8))
        state.unsent = []
        #expect(try roundTrip(port.state(), version: 1) == state)
        #expect(try roundTrip(port.state(), version: 2) == port.state())
    }
}
