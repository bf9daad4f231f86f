internal import FoundationEssentials

/// One varlink call.
package struct Call: Sendable {
    /// The part before the last dot.
    package let interface: String
    /// The part after it.
    package let method: String
    /// Always an object.
    package let parameters: JSONValue
    /// The caller takes several replies.
    package let more: Bool
    /// The caller takes no reply.
    package let oneway: Bool
    /// After the reply the connection is a raw stream.
    package let upgrade: Bool
    private let frame: [UInt8]

    private static let members: Set<String> = ["method", "parameters", "more", "oneway", "upgrade"]

    /// Reads a message. `.malformed` when it is not a varlink call at all.
    package init(frame: [UInt8]) throws(ControlError) {
        let message: JSONValue
        do { message = try JSONParser.parse(frame) } catch { throw .malformed(reason: "the message is not JSON: \(error)") }
        guard case .object(let members) = message else { throw .malformed(reason: "the message is \(message.kind), not an object") }
        if let unknown = members.keys.filter({ !Self.members.contains($0) }).min() {
            throw .malformed(reason: "a call has no member \(unknown.shortened)")
        }
        guard let name = members["method"]?.text, let dot = name.lastIndex(of: ".") else {
            throw .malformed(reason: "the call names no method of an interface")
        }
        let parameters = members["parameters"] ?? .object([:])
        switch parameters {
        case .object: self.parameters = parameters
        case .null: self.parameters = .object([:])
        default: throw .malformed(reason: "parameters is \(parameters.kind), not an object")
        }
        interface = String(name[..<dot])
        method = String(name[name.index(after: dot)...])
        more = try Self.flag("more", in: members)
        oneway = try Self.flag("oneway", in: members)
        upgrade = try Self.flag("upgrade", in: members)
        self.frame = frame
    }

    private static func flag(_ name: String, in members: [String: JSONValue]) throws(ControlError) -> Bool {
        switch members[name] {
        case nil, .null?: return false
        case .bool(let value)?: return value
        case let other?: throw .malformed(reason: "\(name) is \(other.kind), not a boolean")
        }
    }

    /// The parameters as a type. They have been checked against the interface before; what the type itself refuses is told by its path.
    package func decode<Parameters: Decodable>(_ type: Parameters.Type) throws(ServiceError) -> Parameters {
        do {
            if let parameters = try JSONDecoder().decode(Envelope<Parameters>.self, from: Data(frame)).parameters { return parameters }
            return try JSONDecoder().decode(Parameters.self, from: Data("{}".utf8))
        } catch let error as DecodingError {
            throw .invalidParameter(parameter: error.path)
        } catch {
            throw .invalidParameter(parameter: "parameters")
        }
    }

    /// The bytes of a call, NUL included.
    package static func frame<Parameters: Encodable>(
        _ method: String, _ parameters: Parameters, more: Bool = false, oneway: Bool = false, upgrade: Bool = false
    ) -> [UInt8] {
        encodeFrame(
            CallMessage(
                method: method, parameters: parameters, more: more ? true : nil, oneway: oneway ? true : nil, upgrade: upgrade ? true : nil))
    }
}

extension String {
    /// Text of a stranger, fit for a message.
    fileprivate var shortened: String { count > 40 ? "\"\(prefix(40))…\"" : "\"\(self)\"" }
}

extension DecodingError {
    /// Dotted path of the value that was refused, without the envelope's own member.
    fileprivate var path: String {
        let context: Context
        var missing: [any CodingKey] = []
        switch self {
        case .typeMismatch(_, let found), .valueNotFound(_, let found), .dataCorrupted(let found): context = found
        case .keyNotFound(let key, let found):
            context = found
            missing = [key]
        @unknown default: return "parameters"
        }
        let keys = (context.codingPath + missing).map(\.stringValue).drop { $0 == "parameters" }
        return keys.isEmpty ? "parameters" : keys.joined(separator: ".")
    }
}
