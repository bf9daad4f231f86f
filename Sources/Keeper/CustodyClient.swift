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
    fileprivate struct Session: ~Copyable {
        let socket: UnixSocket
        /// What is in custody by machine, once it was listed: nobody else puts anything there.
        var held: [String: Set<CustodyKey>]?
        var buffer = [UInt8](repeating: 0, count: KeeperRequest.maximumLength)
    }
    // One request at a time: the answer to each comes before the next is sent.
    private let session: Mutex<Session>

    package init(_ socket: consuming UnixSocket) {
        session = Mutex(Session(socket: socket))
    }

    /// Deposits a descriptor. It is in custody when this returns.
    package func put(_ key: CustodyKey, _ descriptor: SharedDescriptor) throws(CustodyError) {
        if isHeld(key) == true { throw .refused(.occupied, key) }
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
        if isHeld(key) == false { return }
        do {
            _ = try ask(.drop(key), about: key)
        } catch .refused(.absent, _) {
            return
        }
    }

    /// Whether custody holds it; `nil`: not known here.
    private func isHeld(_ key: CustodyKey) -> Bool? {
        session.withLock { $0.held.map { $0[key.machine]?.contains(key) ?? false } }
    }

    /// The keys of one machine. Only the first call asks the keeper, for everything.
    package func keys(of machine: String) throws(CustodyError) -> [CustodyKey] {
        if let known = session.withLock({ $0.held.map { $0[machine].map(Array.init) ?? [] } }) { return known }
        return try list().filter { $0.machine == machine }
    }

    /// Every key in custody.
    package func list() throws(CustodyError) -> [CustodyKey] {
        try session.withLock { session throws(CustodyError) in
            var keys: [CustodyKey] = []
            var next: UInt32 = 0
            while case .entry(let key, let slot) = try session.exchange(.list(after: next)).reply {
                keys.append(key)
                next = slot + 1
            }
            session.held = Dictionary(grouping: keys, by: \.machine).mapValues(Set.init)
            return keys
        }
    }

    private func ask(
        _ request: KeeperRequest, sending descriptor: SharedDescriptor? = nil, about key: CustodyKey
    ) throws(CustodyError) -> (reply: KeeperReply, descriptors: [SharedDescriptor]) {
        let (reply, descriptors) = try session.withLock { session throws(CustodyError) in
            let answer = try session.exchange(request, sending: descriptor)
            session.note(request, answer.reply)
            return answer
        }
        if case .refused(let refusal) = reply { throw CustodyError.refused(refusal, key) }
        return (reply, descriptors)
    }
}

extension CustodyClient.Session {
    fileprivate mutating func exchange(
        _ request: KeeperRequest, sending descriptor: SharedDescriptor? = nil
    ) throws(CustodyError) -> (reply: KeeperReply, descriptors: [SharedDescriptor]) {
        var writer = WireWriter(capacity: KeeperRequest.maximumLength)
        request.encode(to: &writer)
        let bytes = writer.bytes
        do {
            try socket.send(bytes.span, descriptors: descriptor.map { [$0.number] } ?? [])
            let (length, descriptors) = try socket.receive(into: &buffer)
            if length == 0 { throw CustodyError.unreachable("it closed the session") }
            var reader = WireReader(buffer, range: 0..<length)
            return (try KeeperReply(from: &reader), descriptors)
        } catch let error as CustodyError {
            throw error
        } catch {
            throw .unreachable("\(error)")
        }
    }

    /// Keeps ``held`` true. Before a list there is nothing to keep.
    fileprivate mutating func note(_ request: KeeperRequest, _ reply: KeeperReply) {
        guard reply == .done, held != nil else { return }
        switch request {
        case .put(let key): held?[key.machine, default: []].insert(key)
        case .drop(let key):
            held?[key.machine]?.remove(key)
            if held?[key.machine]?.isEmpty ?? false { held?[key.machine] = nil }
        case .get, .list: break
        }
    }
}
