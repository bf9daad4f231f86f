internal import Wire

/// The key of one thing in custody.
package struct CustodyKey: Sendable, Hashable, CustomStringConvertible {
    /// The machine it belongs to; empty for the host's own.
    package let machine: String
    package let name: String
    /// The worker generation it belongs to; 0 for what outlives workers.
    package let generation: UInt32

    /// Names are at most 64 bytes of UTF-8.
    package init(machine: String, name: String, generation: UInt32 = 0) {
        self.machine = machine
        self.name = name
        self.generation = generation
    }

    package var description: String { generation == 0 ? "\(machine)/\(name)" : "\(machine)/\(name)@\(generation)" }

    static let nameLimit = 64

    init(from reader: inout WireReader) throws(WireError) {
        machine = try reader.string(limit: Self.nameLimit)
        name = try reader.string(limit: Self.nameLimit)
        generation = try reader.u32()
    }

    func encode(to writer: inout WireWriter) {
        writer.string(machine)
        writer.string(name)
        writer.u32(generation)
    }
}

/// The four requests that a keeper serves. A descriptor comes with `put` and goes with the answer to `get`.
enum KeeperRequest: Equatable {
    case put(CustodyKey)
    case get(CustodyKey)
    case drop(CustodyKey)
    case list(after: UInt32)

    static let maximumLength = 256

    func encode(to writer: inout WireWriter) {
        switch self {
        case .put(let key), .get(let key), .drop(let key):
            writer.u8(code)
            key.encode(to: &writer)
        case .list(let after):
            writer.u8(code)
            writer.u32(after)
        }
    }

    private var code: UInt8 {
        switch self {
        case .put: 1
        case .get: 2
        case .drop: 3
        case .list: 4
        }
    }

    init(from reader: inout WireReader) throws(WireError) {
        switch try reader.u8() {
        case 1: self = .put(try CustodyKey(from: &reader))
        case 2: self = .get(try CustodyKey(from: &reader))
        case 3: self = .drop(try CustodyKey(from: &reader))
        case 4: self = .list(after: try reader.u32())
        case let other: throw .invalid(offset: 0, field: "a custody request", value: UInt64(other))
        }
        try reader.finish()
    }
}

/// A keeper's answer.
enum KeeperReply: Equatable {
    case done
    /// The entry in slot `slot`; ask again after it for the next.
    case entry(CustodyKey, slot: UInt32)
    /// No entry after the one asked for.
    case end
    case refused(KeeperRefusal)

    func encode(to writer: inout WireWriter) {
        switch self {
        case .done: writer.u8(1)
        case .entry(let key, let slot):
            writer.u8(2)
            key.encode(to: &writer)
            writer.u32(slot)
        case .end: writer.u8(3)
        case .refused(let refusal):
            writer.u8(4)
            writer.u8(refusal.rawValue)
        }
    }

    init(from reader: inout WireReader) throws(WireError) {
        switch try reader.u8() {
        case 1: self = .done
        case 2: self = .entry(try CustodyKey(from: &reader), slot: try reader.u32())
        case 3: self = .end
        case 4:
            let raw = try reader.u8()
            guard let refusal = KeeperRefusal(rawValue: raw) else { throw .invalid(offset: 1, field: "a refusal", value: UInt64(raw)) }
            self = .refused(refusal)
        case let other: throw .invalid(offset: 0, field: "a custody reply", value: UInt64(other))
        }
        try reader.finish()
    }
}

/// Why a keeper does not do what it was asked.
package enum KeeperRefusal: UInt8, Error, Sendable, CustomStringConvertible {
    case full = 1
    case occupied
    case absent
    case noDescriptor
    case malformed

    package var description: String {
        switch self {
        case .full: "custody is full (\(Custody.capacity) descriptors)"
        case .occupied: "custody already holds something under that key"
        case .absent: "custody holds nothing under that key"
        case .noDescriptor: "exactly one descriptor belongs to this request"
        case .malformed: "the request is malformed"
        }
    }
}
