package import Checkpoint
package import Wire

extension PowerState: DeviceState {
    package static let section = SectionRange("power", writes: 2...2, reads: 1...2)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u8(request?.rawValue ?? 0)
        writer.u16(status)
        writer.u16(enable)
        writer.u16(control)
    }

    /// Version 1 had one bit instead of registers: that the operator asks the guest to switch itself off.
    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        let start = reader.offset
        let value = try reader.u8()
        request = PowerRequest(rawValue: value)
        if request == nil && value != 0 { throw .invalid(offset: start, field: "a power request", value: UInt64(value)) }
        if version == 1 {
            status = try reader.bool() ? Self.powerButton : 0
            return
        }
        status = try Self.register(&reader, "PM1 status", allowing: Self.powerButton)
        enable = try Self.register(&reader, "PM1 enable", allowing: Self.enableBits)
        control = try Self.register(&reader, "PM1 control", allowing: Self.controlBits)
    }

    private static func register(_ reader: inout WireReader, _ field: String, allowing bits: UInt16) throws(WireError) -> UInt16 {
        let start = reader.offset
        let value = try reader.u16()
        if value & ~bits != 0 { throw .invalid(offset: start, field: field, value: UInt64(value)) }
        return value
    }
}
