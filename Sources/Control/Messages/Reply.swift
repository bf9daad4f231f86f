internal import FoundationEssentials

/// One reply to a varlink call.
package struct Reply: Sendable {
    /// More replies to the same call follow.
    package let continues: Bool
    /// Full name of the error, `nil` for a result.
    package let error: String?
    /// Parameters of the error; empty for a result, which ``decode(_:)`` reads.
    package let parameters: JSONValue
    private let frame: [UInt8]

    private struct Head: Decodable {
        let continues: Bool?
        let error: String?
    }

    /// Reads a message. `.malformed` when it is not a varlink reply.
    package init(frame: [UInt8]) throws(ControlError) {
        self.frame = frame
        // A result, which may list a thousand machines, is read once: as what it is.
        if let head = try? JSONDecoder().decode(Head.self, from: Data(frame)), head.error == nil {
            continues = head.continues ?? false
            error = nil
            parameters = .object([:])
            return
        }
        let message: JSONValue
        do { message = try JSONParser.parse(frame) } catch { throw .malformed(reason: "the reply is not JSON: \(error)") }
        guard case .object = message else { throw .malformed(reason: "the reply is \(message.kind), not an object") }
        continues = message["continues"] == .bool(true)
        error = message["error"]?.text
        parameters = message["parameters"] ?? .object([:])
    }

    /// The result as a type. `.malformed` when it does not fit.
    package func decode<Result: Decodable>(_ type: Result.Type) throws(ControlError) -> Result {
        do {
            if let result = try JSONDecoder().decode(Envelope<Result>.self, from: Data(frame)).parameters { return result }
            return try JSONDecoder().decode(Result.self, from: Data("{}".utf8))
        } catch {
            throw .malformed(reason: "the reply does not fit \(Result.self): \(error)")
        }
    }

    /// The bytes of a result, NUL included.
    package static func frame<Result: Encodable>(_ result: Result, continues: Bool = false) -> [UInt8] {
        encodeFrame(ResultMessage(parameters: result, continues: continues ? true : nil))
    }

    /// The bytes of an error, NUL included.
    package static func frame(error: any VarlinkError) -> [UInt8] {
        encodeFrame(ErrorMessage(error: error.name, parameters: error.parameters))
    }
}
