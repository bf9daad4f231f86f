/// Cuts a varlink byte stream into messages: each is a JSON text followed by one NUL byte. Does no I/O.
package struct FrameDecoder: Sendable {
    /// The longest message a server takes, without its NUL: 1 MiB.
    package static let maximumLength = 1 << 20

    private let limit: Int
    private var bytes: [UInt8] = []
    private var scanned = 0

    package init(limit: Int = FrameDecoder.maximumLength) { self.limit = limit }

    /// Adds bytes as they arrived, however they were cut.
    package mutating func append(_ arrived: [UInt8]) { bytes += arrived }

    /// The next whole message without its NUL, or `nil` when more bytes are needed.
    ///
    /// `.malformed`: it is longer than allowed. Nothing sensible can follow; close the connection.
    package mutating func next() throws(ControlError) -> [UInt8]? {
        let end = bytes[scanned...].firstIndex(of: 0)
        guard (end ?? bytes.count) <= limit else { throw .malformed(reason: "the message is longer than \(limit) bytes") }
        guard let end else {
            scanned = bytes.count
            return nil
        }
        let frame = Array(bytes[..<end])
        bytes.removeSubrange(...end)
        scanned = 0
        return frame
    }

    /// Whether a message has begun and not ended.
    package var isPartial: Bool { !bytes.isEmpty }

    /// What arrived after the last whole message, given up: the start of a raw stream after an upgraded call.
    package mutating func takeRest() -> [UInt8] {
        defer {
            bytes = []
            scanned = 0
        }
        return bytes
    }
}
