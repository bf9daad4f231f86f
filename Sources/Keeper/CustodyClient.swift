package import LinuxSystem
internal import Synchronization
internal import Wire

/// Why custody could not do what was asked.
package enum CustodyError: Error, Sendable, CustomStringConvertible {
    case refused(KeeperRefusal, CustodyKey?)
    /// The keeper is gone or does not answer sensibly.
    case unreachable(String)

    package var description: String {
        switch self {
        case .refused(let refusal, let key): key.map { "\($0): \(refusal)" } ?? "\(refusal)"
        case .unreachable(let reason): "the keeper cannot be reached: \(reason)"
        }
    }
}

/// The other side of a keeper's socket: put before use, get after a restart.
package final class CustodyClient: Sendable {
    private struct Session: ~Copyable {
        let socket: UnixSocket
        var buffer = [UInt8](repeating: 0, count: KeeperRequest.maximumLength)
    }
    // One request at a time: the answer to each comes before the next is sent.
    private let session: Mutex<Session>

    package init(_ socket: consuming UnixSocket) {
        session = Mutex(Session(socket: socket))
    }

    /// Deposits a descriptor. It is in custody when this returns.
    package func put(_ key: CustodyKey, _ descriptor: SharedDescriptor) throws(CustodyError) {
        _ = try ask(.put(key), sending: descriptor, about: key)
    }

    /// Another descriptor of what is in custody.
    package func get(_ key: CustodyKey) throws(CustodyError) -> SharedDescriptor {
        guard let descriptor = try ask(.get(key), about: key).descriptors.first else {
            throw .unreachable("no descriptor came for \(key)")
        }
        return descriptor
    }

    /// Gives something out of custody; nothing there is no error.
    package func drop(_ key: CustodyKey) throws(CustodyError) {
        do {
            _ = try ask(.drop(key), about: key)
        } catch .refused(.absent, _) {
            return
        }
    }

    /// Every key in custody.
    package func list() throws(CustodyError) -> [CustodyKey] {
        var keys: [CustodyKey] = []
        var next: UInt32 = 0
        while case .entry(let key, let slot) = try ask(.list(after: next), about: nil).reply {
            keys.append(key)
            next = slot + 1
        }
        return keys
    }

    private func ask(
        _ request: KeeperRequest, sending descriptor: SharedDescriptor? = nil, about key: CustodyKey?
    ) throws(CustodyError) -> (reply: KeeperReply, descriptors: [SharedDescriptor]) {
        var writer = WireWriter(capacity: KeeperRequest.maximumLength)
        request.encode(to: &writer)
        let bytes = writer.bytes
        do {
            let (reply, descriptors) = try session.withLock { session throws(CustodyError) in
                do {
                    try session.socket.send(bytes.span, descriptors: descriptor.map { [$0.number] } ?? [])
                    let (length, descriptors) = try session.socket.receive(into: &session.buffer)
                    if length == 0 { throw CustodyError.unreachable("it closed the session") }
                    var reader = WireReader(session.buffer, range: 0..<length)
                    return (try KeeperReply(from: &reader), descriptors)
                } catch let error as CustodyError {
                    throw error
                } catch {
                    throw .unreachable("\(error)")
                }
            }
            if case .refused(let refusal) = reply { throw CustodyError.refused(refusal, key) }
            return (reply, descriptors)
        }
    }
}
