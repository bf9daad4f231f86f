package import Checkpoint
package import Wire

extension PIT8254State: DeviceState {
    package static let section = SectionRange("pit", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        for channel in channels { channel.encode(to: &writer) }
        writer.u64(delivered)
        writer.u64(skipped)
        writer.u8(speaker)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        channels = []
        for _ in 0..<3 { channels.append(try Channel(from: &reader)) }
        delivered = try reader.u64()
        skipped = try reader.u64()
        speaker = try reader.register("port 0x61", allowing: 3)
    }
}

extension PIT8254State.Channel {
    fileprivate func encode(to writer: inout WireWriter) {
        writer.u8(control)
        writer.u16(reload)
        writer.bool(isLoaded)
        writer.optional(started) { $0.i64($1) }
        writer.bool(gate)
        writer.optional(suspended) { $0.i64($1) }
        writer.optional(pendingLow) { $0.u8($1) }
        writer.bool(readsHigh)
        writer.optional(latchedCount) { $0.u16($1) }
        writer.optional(latchedStatus) { $0.u8($1) }
    }

    fileprivate init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        control = try reader.register("a counter's control word", allowing: 0x3F)
        if (control >> 1) & 7 > 5 { throw .invalid(offset: start, field: "a counter's mode", value: UInt64((control >> 1) & 7)) }
        reload = try reader.u16()
        isLoaded = try reader.bool()
        started = try reader.optional { reader throws(WireError) in try reader.i64() }
        gate = try reader.bool()
        suspended = try reader.optional { reader throws(WireError) in try reader.i64() }
        pendingLow = try reader.optional { reader throws(WireError) in try reader.u8() }
        readsHigh = try reader.bool()
        latchedCount = try reader.optional { reader throws(WireError) in try reader.u16() }
        latchedStatus = try reader.optional { reader throws(WireError) in try reader.u8() }
    }
}
