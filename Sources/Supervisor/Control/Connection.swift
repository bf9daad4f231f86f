internal import Control
internal import LinuxSystem
internal import SystemPackage

/// How long a client may take.
package struct ConnectionLimits: Sendable {
    /// For the rest of a message that has begun.
    package var partialMessage: Duration = .seconds(10)
    /// Between two calls.
    package var idle: Duration = .seconds(600)
    /// For taking one reply.
    package var write: Duration = .seconds(10)

    package init() {}
}

/// A client's socket, shared between the thread that accepted it and the one that serves it.
final class ConnectionSocket: Sendable {
    let socket: UnixSocket

    init(_ socket: consuming UnixSocket) { self.socket = socket }

    var number: CInt { socket.descriptor.number }
}

/// A connection that no longer carries messages.
struct RawStream: ~Copyable {
    let connection: OwnedDescriptor
    let pending: [UInt8]
}

/// One client: whole messages in, whole messages out, everything with a deadline. Used by one thread.
struct Connection: ~Copyable {
    private let client: ConnectionSocket
    private let stopping: CInt
    private let limits: ConnectionLimits
    private var decoder = FrameDecoder()
    /// Nothing more can be sent; whatever is under way goes on without its client.
    private(set) var isBroken = false

    init(_ client: ConnectionSocket, stopping: CInt, limits: ConnectionLimits) {
        self.client = client
        self.stopping = stopping
        self.limits = limits
    }

    /// The next message; `nil` when the client has left, was too slow, or the server stops. Throws `.malformed` for an over-long one.
    mutating func nextFrame() throws(ControlError) -> [UInt8]? {
        var start = SystemClock.monotonic()
        while !isBroken {
            if let frame = try decoder.next() { return frame }
            let wasPartial = decoder.isPartial
            let limit = wasPartial ? limits.partialMessage : limits.idle
            let left = start + limit.nanoseconds - SystemClock.monotonic()
            guard left > 0, wait(for: .readable, timeout: .nanoseconds(left)) else { return nil }
            do {
                let arrived = try client.socket.descriptor.read(upTo: 65536)
                if arrived.isEmpty { return nil }
                decoder.append(arrived)
                if !wasPartial { start = SystemClock.monotonic() }
            } catch .wouldBlock {
                continue
            } catch {
                return nil
            }
        }
        return nil
    }

    /// Sends a message whole. A client that does not take it in time is given up.
    mutating func send(_ frame: [UInt8]) {
        let end = SystemClock.monotonic() + limits.write.nanoseconds
        var rest = frame[...]
        while !rest.isEmpty, !isBroken {
            do {
                rest = rest.dropFirst(try client.socket.sendSome(rest))
            } catch .wouldBlock {
                let left = end - SystemClock.monotonic()
                if left <= 0 || !wait(for: .writable, timeout: .nanoseconds(left)) { isBroken = true }
            } catch {
                isBroken = true
            }
        }
    }

    /// Waits until `descriptor` is readable or the client has left. What else the client sends meanwhile stays where it is.
    mutating func waitForClientOr(_ descriptor: CInt) {
        // Asking for nothing still reports a peer that is gone.
        var poll = Poll([(descriptor, .readable), (client.number, []), (stopping, .readable)])
        _ = try? poll.wait(timeout: nil)
        if !poll.result(at: 1).isEmpty || !poll.result(at: 2).isEmpty { isBroken = true }
    }

    /// Notices a client that has left, without waiting.
    mutating func checkForClient() {
        var poll = Poll([(client.number, []), (stopping, .readable)])
        if let ready = try? poll.wait(timeout: .zero), ready > 0 { isBroken = true }
    }

    /// Gives the stream away, with what arrived beyond the last message. Nothing more is read or sent here.
    mutating func giveAway() throws(Errno) -> RawStream {
        isBroken = true
        return RawStream(connection: try client.socket.descriptor.duplicate(), pending: decoder.takeRest())
    }

    private func wait(for interest: Readiness, timeout: Duration) -> Bool {
        var poll = Poll([(client.number, interest), (stopping, .readable)])
        guard let ready = try? poll.wait(timeout: timeout), ready > 0 else { return false }
        return poll.result(at: 1).isEmpty
    }
}
