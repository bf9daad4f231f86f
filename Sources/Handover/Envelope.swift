package import Wire

/// What every message of a session begins with.
///
///     0 magic u32 "BATN"  4 protocol u16  6 kind u16  8 generation u32  12 sequence u32  16 descriptors u16  18 zero u16  20 payload
package struct Envelope: Sendable, Equatable {
    /// The version of orders and reports spoken here.
    package static let protocolVersion: UInt16 = 1
    /// A message's length is at most this, payload and all.
    package static let maximumLength = 128 * 1024
    static let magic: UInt32 = 0x4E54_4142

    package let kind: UInt16
    /// The generation of the worker that the message is for or from.
    package let generation: UInt32
    /// Orders count up; a report repeats its order's number, 0 when nobody asked.
    package let sequence: UInt32
    /// How many descriptors travel with the message. Fewer or more arriving is a failure.
    package let descriptorCount: UInt16

    package init(kind: UInt16, generation: UInt32, sequence: UInt32, descriptorCount: Int = 0) {
        self.kind = kind
        self.generation = generation
        self.sequence = sequence
        self.descriptorCount = UInt16(clamping: descriptorCount)
    }

    package func encode(to writer: inout WireWriter) {
        writer.u32(Self.magic)
        writer.u16(Self.protocolVersion)
        writer.u16(kind)
        writer.u32(generation)
        writer.u32(sequence)
        writer.u16(descriptorCount)
        writer.u16(0)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let magic = try reader.u32()
        if magic != Self.magic { throw .invalid(offset: 0, field: "the magic number", value: UInt64(magic)) }
        let version = try reader.u16()
        if version != Self.protocolVersion { throw .invalid(offset: 4, field: "the protocol version", value: UInt64(version)) }
        kind = try reader.u16()
        generation = try reader.u32()
        sequence = try reader.u32()
        descriptorCount = try reader.u16()
        let zero = try reader.u16()
        if zero != 0 { throw .invalid(offset: 18, field: "the reserved field", value: UInt64(zero)) }
    }
}
