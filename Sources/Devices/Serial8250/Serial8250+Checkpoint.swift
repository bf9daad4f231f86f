package import Checkpoint
package import Wire

extension Serial8250State: DeviceState {
    /// Version 2 added what the console has not taken and how much it never will. Written as version 1, unsent bytes are lost to the
    /// console (the guest has sent them and will not notice) and the count begins anew.
    package static let section = SectionRange("serial", writes: 1...2, reads: 1...2)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u8(interruptEnable)
        writer.u8(fifoControl)
        writer.u8(lineControl)
        writer.u8(modemControl)
        writer.u8(scratch)
        writer.u16(divisor)
        writer.bool(overrun)
        writer.u8(modemDeltas)
        writer.bool(transmitterInterrupt)
        writer.blob(received)
        guard version >= 2 else { return }
        writer.blob(unsent)
        writer.u64(dropped)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        interruptEnable = try reader.register("IER", allowing: 0x0F)
        fifoControl = try reader.register("FCR", allowing: 0xC9)
        lineControl = try reader.u8()
        modemControl = try reader.register("MCR", allowing: 0x1F)
        scratch = try reader.u8()
        divisor = try reader.u16()
        overrun = try reader.bool()
        modemDeltas = try reader.register("MSR", allowing: 0x0F)
        transmitterInterrupt = try reader.bool()
        received = try reader.blob(limit: fifoControl & 1 == 0 ? 1 : SerialFIFO.capacity)
        guard version >= 2 else { return }
        unsent = try reader.blob(limit: Serial8250.outputLimit)
        dropped = try reader.u64()
    }
}

extension WireReader {
    /// A byte of which only the bits in `mask` may be set.
    mutating func register(_ name: String, allowing mask: UInt8) throws(WireError) -> UInt8 {
        let start = offset
        let value = try u8()
        if value & ~mask != 0 { throw .invalid(offset: start, field: name, value: UInt64(value)) }
        return value
    }
}
