internal import FoundationEssentials

/// The members around parameters, on their way in.
struct Envelope<Content: Decodable>: Decodable {
    let parameters: Content?
}

struct CallMessage<Parameters: Encodable>: Encodable {
    let method: String
    let parameters: Parameters
    let more: Bool?
    let oneway: Bool?
    let upgrade: Bool?
}

struct ResultMessage<Content: Encodable>: Encodable {
    let parameters: Content
    let continues: Bool?
}

struct ErrorMessage: Encodable {
    let error: String
    let parameters: [String: JSONValue]
}

/// A value as one message, NUL included. Members are sorted, so that equal values give equal bytes.
func encodeFrame(_ message: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Encoding fails only for values JSON has no form for, infinities among them; no type of this interface holds one.
    guard let data = try? encoder.encode(message) else { return Array(#"{"error":"io.baton.Supervisor.Failed"}"#.utf8) + [0] }
    return Array(data) + [0]
}

/// A value as JSON text for people and scripts: one line, or indented.
package func jsonText(_ value: some Encodable, indented: Bool) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = indented ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(value) else { return "null" }
    return String(decoding: data, as: UTF8.self)
}
