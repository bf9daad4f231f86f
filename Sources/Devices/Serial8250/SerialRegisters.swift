/// The registers of a 16550A and what reading and writing them does (National Semiconductor PC16550D data sheet, section 8).
///
/// Transmission takes no time, so the transmitter is always empty. The receiver has its time-out as soon as bytes wait below the
/// trigger level, for the same reason. The interrupt pin is not gated by OUT2, as on most virtual machines.
struct SerialRegisters: Sendable {
    /// Bits and values of the registers, by the data sheet's names.
    enum Bit {
        static let receivedDataAvailable: UInt8 = 0x01  // IER
        static let transmitterEmpty: UInt8 = 0x02
        static let lineStatus: UInt8 = 0x04
        static let modemStatus: UInt8 = 0x08
        static let fifoEnable: UInt8 = 0x01  // FCR
        static let clearReceiver: UInt8 = 0x02
        static let divisorLatch: UInt8 = 0x80  // LCR
        static let outputs: UInt8 = 0x0F  // MCR: DTR RTS OUT1 OUT2
        static let loopback: UInt8 = 0x10
        static let dataReady: UInt8 = 0x01  // LSR
        static let overrun: UInt8 = 0x02
        static let transmitterIdle: UInt8 = 0x60  // THRE, TEMT
        static let carrierPresent: UInt8 = 0xB0  // MSR: DCD DSR CTS
    }

    var interruptEnable: UInt8 = 0
    var fifoControl: UInt8 = 0
    var lineControl: UInt8 = 0
    var modemControl: UInt8 = 0
    var scratch: UInt8 = 0
    /// Divides the 115200 baud clock; kept for the guest to read back.
    var divisor: UInt16 = 12
    /// LSR bit 1, until LSR is read.
    var overrun = false
    /// MSR bits 0 to 3, until MSR is read.
    var modemDeltas: UInt8 = 0
    /// The transmitter became empty and neither IIR was read nor THR written since.
    var transmitterInterrupt = false
    var received = SerialFIFO()

    private var fifoEnabled: Bool { fifoControl & Bit.fifoEnable != 0 }
    private var isLooped: Bool { modemControl & Bit.loopback != 0 }
    private var latchesDivisor: Bool { lineControl & Bit.divisorLatch != 0 }

    /// Bytes that can be received without an overrun: 16, or 1 without FIFO. None in loopback: the receiver is disconnected.
    var room: Int {
        if isLooped { return 0 }
        return max(0, (fifoEnabled ? SerialFIFO.capacity : 1) - received.count)
    }

    /// The level of the interrupt pin.
    var interrupts: Bool { interruptIdentification != 1 }

    /// IIR without the FIFO bits: the pending interrupt of highest priority, 1 for none.
    private var interruptIdentification: UInt8 {
        if interruptEnable & Bit.lineStatus != 0 && overrun { return 0x06 }
        if interruptEnable & Bit.receivedDataAvailable != 0 && received.count > 0 {
            return fifoEnabled && received.count < triggerLevel ? 0x0C : 0x04
        }
        if interruptEnable & Bit.transmitterEmpty != 0 && transmitterInterrupt { return 0x02 }
        if interruptEnable & Bit.modemStatus != 0 && modemDeltas != 0 { return 0x00 }
        return 0x01
    }

    private var triggerLevel: Int { [1, 4, 8, 14][Int(fifoControl >> 6)] }

    /// MSR bits 4 to 7: a connected peer, or in loopback the outputs (RTS→CTS, DTR→DSR, OUT1→RI, OUT2→DCD).
    private var modemLines: UInt8 { Self.modemLines(modemControl) }

    private static func modemLines(_ control: UInt8) -> UInt8 {
        if control & Bit.loopback == 0 { return Bit.carrierPresent }
        return (control & 0x02) << 3 | (control & 0x01) << 5 | (control & 0x04) << 4 | (control & 0x08) << 4
    }

    /// A byte arrives from outside or, in loopback, from the transmitter.
    mutating func receive(_ byte: UInt8) {
        if received.count >= (fifoEnabled ? SerialFIFO.capacity : 1) {
            overrun = true  // a FIFO keeps what it has; the single holding register is overwritten
            if fifoEnabled { return }
            received.removeAll()
        }
        received.append(byte)
    }

    /// Reads the register at `offset` 0 to 7.
    mutating func read(_ offset: UInt16) -> UInt8 {
        switch offset {
        case 0: return latchesDivisor ? UInt8(truncatingIfNeeded: divisor) : received.removeFirst() ?? 0
        case 1: return latchesDivisor ? UInt8(divisor >> 8) : interruptEnable
        case 2:
            let identification = interruptIdentification
            if identification == 0x02 { transmitterInterrupt = false }
            return identification | (fifoEnabled ? 0xC0 : 0)
        case 3: return lineControl
        case 4: return modemControl
        case 5:
            defer { overrun = false }
            return Bit.transmitterIdle | (received.count > 0 ? Bit.dataReady : 0) | (overrun ? Bit.overrun : 0)
        case 6:
            defer { modemDeltas = 0 }
            return modemLines | modemDeltas
        default: return scratch
        }
    }

    /// Writes the register at `offset` 0 to 7. Returns a byte that goes out on the line.
    mutating func write(_ value: UInt8, _ offset: UInt16) -> UInt8? {
        switch offset {
        case 0 where latchesDivisor: divisor = divisor & 0xFF00 | UInt16(value)
        case 0: return transmit(value)
        case 1 where latchesDivisor: divisor = divisor & 0x00FF | UInt16(value) << 8
        case 1:
            // Enabling the interrupt while the transmitter is empty is an interrupt of its own.
            if value & Bit.transmitterEmpty != 0 && interruptEnable & Bit.transmitterEmpty == 0 { transmitterInterrupt = true }
            interruptEnable = value & 0x0F
        case 2: writeFIFOControl(value)
        case 3: lineControl = value
        case 4: writeModemControl(value & 0x1F)
        case 7: scratch = value
        default: break  // LSR and MSR are read-only
        }
        return nil
    }

    private mutating func transmit(_ value: UInt8) -> UInt8? {
        transmitterInterrupt = true  // it was taken, and is already sent
        if !isLooped { return value }
        receive(value)
        return nil
    }

    private mutating func writeFIFOControl(_ value: UInt8) {
        let enabled = value & Bit.fifoEnable
        if enabled != fifoControl & Bit.fifoEnable || enabled != 0 && value & Bit.clearReceiver != 0 { received.removeAll() }
        fifoControl = enabled == 0 ? 0 : value & 0xC9  // the clear bits clear themselves
    }

    private mutating func writeModemControl(_ value: UInt8) {
        let before = modemLines
        modemControl = value
        let changed = before ^ modemLines
        modemDeltas |= (changed >> 4) & 0x0B  // DCTS, DDSR, DDCD
        if changed & 0x40 != 0 && before & 0x40 != 0 { modemDeltas |= 0x04 }  // TERI: the trailing edge of RI
    }
}
