package import Checkpoint
package import Wire

/// The stored state of a passed-through function: what is emulated of it. The rest is in the device and stays there.
package struct PassthroughState: Sendable, Equatable {
    /// The changeable bytes of its configuration space, ascending. Where those are is part of the machine's shape.
    package var registers: [UInt8]
    /// The MSI-X table: address low, address high, data, control of each vector.
    package var table: [UInt32]
    /// What its device's interrupts are armed for.
    package var mode: InterruptMode

    package init(registers: [UInt8] = [], table: [UInt32] = [], mode: InterruptMode = .none) {
        self.registers = registers
        self.table = table
        self.mode = mode
    }
}

extension PassthroughState: DeviceState {
    package static let section = SectionRange("passthrough", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.blob(registers)
        writer.list(table) { $0.u32($1) }
        writer.u8(mode.rawValue)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        registers = try reader.blob(limit: PCIConfigurationSpace.size)
        let start = reader.offset
        table = try reader.list(limit: 4 * 2048) { reader throws(WireError) in try reader.u32() }
        if table.count % 4 != 0 { throw .invalid(offset: start, field: "the words of an MSI-X table", value: UInt64(table.count)) }
        let place = reader.offset
        let raw = try reader.u8()
        guard let mode = InterruptMode(rawValue: raw) else { throw .invalid(offset: place, field: "how a device interrupts", value: UInt64(raw)) }
        self.mode = mode
    }
}
