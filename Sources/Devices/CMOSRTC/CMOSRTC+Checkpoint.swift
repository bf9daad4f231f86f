package import Checkpoint
package import Wire

extension CMOSRTCState: DeviceState {
    package static let section = SectionRange("rtc", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u8(index)
        writer.raw(memory)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        index = try reader.register("the clock's register number", allowing: 0x7F)
        memory = try reader.raw(128 - Self.firstByte)
    }
}
