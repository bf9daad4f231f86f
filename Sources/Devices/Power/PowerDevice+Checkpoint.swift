package import Checkpoint
package import Wire

extension PowerState: DeviceState {
    package static let section = SectionRange("power", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u8(request?.rawValue ?? 0)
        writer.bool(operatorAsks)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        let start = reader.offset
        let value = try reader.u8()
        request = PowerRequest(rawValue: value)
        if request == nil && value != 0 { throw .invalid(offset: start, field: "a power request", value: UInt64(value)) }
        operatorAsks = try reader.bool()
    }
}
