package import Checkpoint
package import Wire

extension ResetPortState: DeviceState {
    package static let section = SectionRange("reset-port", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) { writer.u8(control) }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        control = try reader.register("the reset control register", allowing: 0x0E)
    }
}
