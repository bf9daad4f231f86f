/// Cuts a varlink byte stream into messages: each is a JSON text followed by one NUL byte. Does no I/O.
package struct FrameDecoder: Sendable {
    /// The longest message a server takes, without its NUL: 1 MiB.
    package static let maximumLength = 1 << 20

    private let limit: Int
    private var bytes: [UInt8] = []
    /// Where the next message begins; what is before has been given out.
    private var start = 0
    /// Up to here there is no NUL after `start`.
    private var scanned = 0

    package init(limit: Int = FrameDecoder.maximumLength) { self.limit = limit }

    /// Adds bytes as they arrived, however they were cut.
    package mutating func append(_ arrived: [UInt8]) {
        // Once for all messages given out, however many: moving the rest for each would let small ones cost more than they are.
        bytes.removeSubrange(..<start)
        scanned -= start
        start = 0
        bytes += arrived
    }

    /// The next whole message without its NUL, or `nil` when more bytes are needed.
    ///
    /// `.malformed`: it is longer than allowed. Nothing sensible can follow; close the connection.
    package mutating func next() throws(ControlError) -> [UInt8]? {
        let end = bytes[scanned...].firstIndex(of: 0)
        guard (end ?? bytes.count) - start <= limit else { throw .malformed(reason: "the message is longer than \(limit) bytes") }
        guard let end else {
            scanned = bytes.count
            return nil
        }
        let frame = Array(bytes[start..<end])
        start = end + 1
        scanned = start
        return frame
    }

    /// Whether a message has begun and not ended.
    package var isPartial: Bool { start < bytes.count }

    /// What arrived after the last whole message, given up: the start of a raw stream after an upgraded call.
    package mutating func takeRest() -> [UInt8] {
        defer {
            bytes = []
            start = 0
            scanned = 0
        }
        return Array(bytes[start...])
    }
}
