package import Handover
package import LinuxSystem
package import SystemPackage
internal import Wire

/// Why a message did not go or come.
package enum ChannelError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The other end is gone.
    case closed
    /// Nothing came in time.
    case timedOut
    /// A message came that is none, or not whole, or with the wrong descriptors.
    case malformed(String)
    /// The message is longer than ``Envelope/maximumLength``.
    case tooLong(Int)
    case system(Errno)

    package var description: String {
        switch self {
        case .closed: "the other end closed the session"
        case .timedOut: "no answer in time"
        case .malformed(let reason): "a malformed message: \(reason)"
        case .tooLong(let length): "a message of \(length) bytes is over the limit of \(Envelope.maximumLength)"
        case .system(let errno): "\(errno)"
        }
    }
}

/// A message that arrived, with the descriptors that came with it.
package struct Received<Body: MessageBody>: Sendable {
    package let message: Message<Body>
    package let descriptors: [SharedDescriptor]
}

/// One end of a session: framed messages together with their descriptors over a SEQPACKET socket, whole or not at all.
///
/// `Outbound` is what this end says, `Inbound` what it hears. Buffers are allocated once. Sending and receiving may happen on two
/// threads, but only one thread sends and only one receives at any time.
package final class Channel<Outbound: MessageBody, Inbound: MessageBody>: @unchecked Sendable {
    private let socket: UnixSocket
    private var sendBuffer = WireWriter(capacity: Envelope.maximumLength)
    private var receiveBuffer = UnixSocket.buffer(Envelope.maximumLength + 1)

    package init(_ socket: consuming UnixSocket) {
        self.socket = socket
    }

    /// For poll(2).
    package var number: CInt { socket.descriptor.number }

    /// A duplicate of the socket, for custody.
    package func duplicateSocket() throws(Errno) -> OwnedDescriptor {
        try socket.descriptor.duplicate()
    }

    /// Sends `body`. The message is queued or the call fails: a peer that does not read is `EAGAIN`, never a wait.
    package func send(_ body: Outbound, generation: UInt32, sequence: UInt32, descriptors: [SharedDescriptor] = []) throws(ChannelError) {
        precondition(descriptors.count == body.descriptorCount, "descriptors and manifest differ")
        sendBuffer.removeAll()
        Message(body, generation: generation, sequence: sequence).encode(to: &sendBuffer)
        if sendBuffer.count > Envelope.maximumLength { throw .tooLong(sendBuffer.count) }
        let bytes = sendBuffer.bytes
        do {
            try socket.send(bytes.span, descriptors: descriptors.map(\.number), waiting: false)
        } catch Errno.brokenPipe, Errno.connectionReset {
            throw .closed
        } catch {
            throw .system(error)
        }
    }

    /// Waits for the next message, at most `timeout` (`nil`: for ever).
    package func receive(timeout: Duration?) throws(ChannelError) -> Received<Inbound> {
        let ready: Bool
        do { ready = try Poll.one(socket.descriptor.number, timeout: timeout) } catch { throw .system(error) }
        guard ready, let received = try receiveWaiting() else { throw .timedOut }
        return received
    }

    /// The next message if one is there already.
    package func receiveWaiting() throws(ChannelError) -> Received<Inbound>? {
        let length: Int
        let descriptors: [SharedDescriptor]
        do {
            (length, descriptors) = try socket.receive(into: &receiveBuffer, waiting: false)
        } catch Errno.wouldBlock {
            return nil
        } catch Errno.connectionReset {
            throw .closed
        } catch let error where error.rawValue == 71 {  // EPROTO: cut off, or descriptors missing
            throw .malformed("it did not arrive whole")
        } catch {
            throw .system(error)
        }
        if length == 0 { throw .closed }
        do {
            let message = try Message<Inbound>(receiveBuffer, length: length)
            if descriptors.count != message.body.descriptorCount {
                throw ChannelError.malformed("\(descriptors.count) descriptors came with it, \(message.body.descriptorCount) belong to it")
            }
            return Received(message: message, descriptors: descriptors)
        } catch let error as WireError {
            throw .malformed(error.description)
        } catch {
            throw error as? ChannelError ?? .malformed("\(error)")
        }
    }
}

/// The supervisor's end of a worker's session.
package typealias WorkerChannel = Channel<Order, Report>
/// The worker's end.
package typealias SupervisorChannel = Channel<Report, Order>
