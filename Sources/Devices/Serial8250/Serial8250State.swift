/// What of a serial port is carried from worker to worker.
package struct Serial8250State: Sendable, Equatable {
    /// IER, bits 0 to 3.
    package var interruptEnable: UInt8 = 0
    /// FCR without the bits that clear themselves; 0 while the FIFOs are off.
    package var fifoControl: UInt8 = 0
    /// LCR.
    package var lineControl: UInt8 = 0
    /// MCR, bits 0 to 4.
    package var modemControl: UInt8 = 0
    /// SCR.
    package var scratch: UInt8 = 0
    /// DLL and DLM.
    package var divisor: UInt16 = 12
    /// LSR bit 1.
    package var overrun = false
    /// MSR bits 0 to 3.
    package var modemDeltas: UInt8 = 0
    /// The transmitter-empty interrupt waits.
    package var transmitterInterrupt = false
    /// Bytes received and not read by the guest, at most 16; at most 1 while the FIFOs are off.
    package var received: [UInt8] = []
    /// Bytes the guest sent which the console has not taken yet, at most ``Serial8250/outputLimit``. From section version 2.
    package var unsent: [UInt8] = []
    /// Bytes the guest sent which nobody will see, because the console took none for too long. From section version 2.
    package var dropped: UInt64 = 0

    package init() {}

    init(_ registers: SerialRegisters, unsent: [UInt8], dropped: UInt64) {
        interruptEnable = registers.interruptEnable
        fifoControl = registers.fifoControl
        lineControl = registers.lineControl
        modemControl = registers.modemControl
        scratch = registers.scratch
        divisor = registers.divisor
        overrun = registers.overrun
        modemDeltas = registers.modemDeltas
        transmitterInterrupt = registers.transmitterInterrupt
        received = registers.received.content
        self.unsent = unsent
        self.dropped = dropped
    }

    /// The live registers of this state.
    var registers: SerialRegisters {
        var registers = SerialRegisters()
        registers.interruptEnable = interruptEnable
        registers.fifoControl = fifoControl
        registers.lineControl = lineControl
        registers.modemControl = modemControl
        registers.scratch = scratch
        registers.divisor = divisor
        registers.overrun = overrun
        registers.modemDeltas = modemDeltas
        registers.transmitterInterrupt = transmitterInterrupt
        registers.received = SerialFIFO(received)
        return registers
    }
}
