internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Connects the ports of virtio consoles with clients on sockets, one client a port at a time.
///
/// Both directions are flow-controlled and nothing is taken before it can be given: bytes are peeked at, passed on, and only then taken as far as they
/// went. What a supervisor that is killed in between had passed on comes again, and what it had not is still there. One thread serves all machines.
final class PortRelay: Sendable {
    private let ports = Mutex<[RelayedPort]>([])
    private let wake: EventDescriptor
    /// How long a client has to take what a machine sent before its end.
    private static let patience: Int64 = 10_000_000_000

    init() throws(Errno) {
        wake = try EventDescriptor()
    }

    func start() throws(Errno) {
        try SystemThread(name: "ports") { [self] in
            while true { serveOnce() }
        }.detach()
    }

    func add(machine: String, _ resources: [DeviceResources.Port]) throws(Errno) {
        for port in resources { try port.own.descriptor.setNonBlocking(true) }
        ports.withLock { ports in ports += resources.map { RelayedPort(machine: machine, stream: $0.own, listener: $0.listener) } }
        wake.signal()
    }

    /// The machine is off: nobody connects any more, and who is connected gets what is left.
    func remove(machine: String) {
        let deadline = SystemClock.monotonic() + Self.patience
        ports.withLock { ports in
            for index in ports.indices where ports[index].machine == machine && ports[index].deadline == nil {
                ports[index].listener.remove()
                ports[index].deadline = deadline
            }
        }
        wake.signal()
    }

    private func serveOnce() {
        var poll = Poll([(wake.descriptor.number, .readable)])
        var deadline: Int64?
        // Entries of the poll in the order of ports; descriptors stay open as long as `watched` holds them.
        let watched = ports.withLock { ports in
            for port in ports {
                for (number, readiness) in port.interest { poll.add(number, readiness) }
                if let end = port.deadline { deadline = min(deadline ?? end, end) }
            }
            return ports
        }
        _ = try? poll.wait(timeout: deadline.map { .nanoseconds(max(0, $0 - SystemClock.monotonic())) })
        wake.take()
        withExtendedLifetime(watched) {
            ports.withLock { ports in
                for index in ports.indices { ports[index].serve() }
                ports.removeAll(where: \.isFinished)
            }
        }
    }
}

/// One port: a stream of the guest, a socket, and the client there is.
struct RelayedPort: Sendable {
    private struct Client {
        let connection: SharedDescriptor
        /// It takes no more just now.
        var isFull = false
        /// It sends no more; it takes no more.
        var hasSentAll = false
        var hasLeft = false
    }

    let machine: String
    let stream: SharedDescriptor
    let listener: SocketListener
    /// When the rest is given up; `nil` while the machine runs.
    var deadline: Int64?
    private var client: Client?
    /// The guest takes no more just now.
    private var guestIsFull = false

    private static let chunk = 64 << 10
    /// A port that is busy both ways leaves time for the others.
    private static let turns = 16

    init(machine: String, stream: SharedDescriptor, listener: SocketListener) {
        self.machine = machine
        self.stream = stream
        self.listener = listener
    }

    /// What to wait for. Nothing that is there already and cannot be passed on.
    var interest: [(CInt, Readiness)] {
        guard let client else { return deadline == nil ? [(listener.file.number, .readable)] : [] }
        var ofStream: Readiness = []
        var ofClient: Readiness = []
        if !client.hasLeft {
            if client.isFull { ofClient.insert(.writable) } else { ofStream.insert(.readable) }
        }
        if !client.hasSentAll {
            if guestIsFull { ofStream.insert(.writable) } else { ofClient.insert(.readable) }
        }
        var interest: [(CInt, Readiness)] = ofStream.isEmpty ? [] : [(stream.number, ofStream)]
        // Asked for nothing, a poll still tells of a client's end; one whose end is known would keep it from waiting.
        if !client.hasLeft || !ofClient.isEmpty { interest.append((client.connection.number, ofClient)) }
        return interest
    }

    var isFinished: Bool {
        guard let deadline else { return false }
        return client == nil || SystemClock.monotonic() >= deadline
    }

    /// Passes on what can be passed on, and takes the next client when there is none.
    mutating func serve() {
        if client == nil, deadline == nil, let connection = listener.accept() { client = Client(connection: connection) }
        guard var client else { return }
        toGuest(&client)
        toClient(&client)
        let isOver = client.hasLeft && client.hasSentAll
        self.client = isOver ? nil : client
        if deadline != nil, !isOver, !client.isFull, !client.hasLeft { self.client = nil }  // it has everything
    }

    private func toClient(_ client: inout Client) {
        client.isFull = false
        for _ in 0..<Self.turns where !client.hasLeft {
            guard let bytes = try? UnixSocket.peek(stream.descriptor, upTo: Self.chunk), !bytes.isEmpty else { break }
            do {
                let taken = try client.connection.descriptor.write(bytes.span)
                _ = try? stream.descriptor.read(upTo: taken)
            } catch Errno.wouldBlock {
                client.isFull = true
                break
            } catch {
                client.hasLeft = true
            }
        }
        if !client.hasLeft, Self.isHungUp(client.connection) { client.hasLeft = true }
    }

    private mutating func toGuest(_ client: inout Client) {
        guestIsFull = false
        for _ in 0..<Self.turns where !client.hasSentAll {
            let bytes: [UInt8]
            do { bytes = try UnixSocket.peek(client.connection.descriptor, upTo: Self.chunk) } catch Errno.wouldBlock { return } catch {
                client.hasSentAll = true
                client.hasLeft = true
                return
            }
            if bytes.isEmpty {
                client.hasSentAll = true
                return
            }
            do {
                let taken = try stream.descriptor.write(bytes.span)
                _ = try? client.connection.descriptor.read(upTo: taken)
            } catch {
                guestIsFull = true  // or the stream is broken, which is the machine's end
                return
            }
        }
    }

    /// Whether the other side closed both directions.
    private static func isHungUp(_ connection: SharedDescriptor) -> Bool {
        var poll = Poll([(connection.number, [])])
        _ = try? poll.wait(timeout: .zero)
        return !poll.result(at: 0).isDisjoint(with: [.hungUp, .failed])
    }
}
