package import Wire

/// An order or a report with its envelope.
package struct Message<Body: MessageBody>: Sendable, Equatable {
    package let envelope: Envelope
    package let body: Body

    package init(_ body: Body, generation: UInt32, sequence: UInt32) {
        envelope = Envelope(kind: body.kind, generation: generation, sequence: sequence, descriptorCount: body.descriptorCount)
        self.body = body
    }

    package func encode(to writer: inout WireWriter) {
        envelope.encode(to: &writer)
        body.encodePayload(to: &writer)
    }

    /// Reads one message of `length` bytes, all of it.
    package init(_ bytes: [UInt8], length: Int? = nil) throws(WireError) {
        var reader = WireReader(bytes, range: 0..<(length ?? bytes.count))
        envelope = try Envelope(from: &reader)
        body = try Body(kind: envelope.kind, payload: &reader)
        if Int(envelope.descriptorCount) != body.descriptorCount {
            throw .invalid(offset: 16, field: "the number of descriptors", value: UInt64(envelope.descriptorCount))
        }
    }
}

/// The part of a message behind its envelope.
package protocol MessageBody: Sendable, Equatable {
    var kind: UInt16 { get }
    var descriptorCount: Int { get }
    func encodePayload(to writer: inout WireWriter)
    init(kind: UInt16, payload reader: inout WireReader) throws(WireError)
}

extension Order: MessageBody {}
extension Report: MessageBody {
    package var descriptorCount: Int { 0 }
}
