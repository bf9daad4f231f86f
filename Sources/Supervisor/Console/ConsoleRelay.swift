internal import Control
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Reads every machine's serial console, keeps a bounded log of it, and passes it on to whoever is attached: by `baton console`, or at the machine's own socket.
///
/// The stream is in custody: while no supervisor runs it collects in the socket, and nothing is lost until that is full. Bytes are taken out of
/// it once they are in the log and with the clients, so a supervisor that is killed loses none. One thread serves all machines, and the guest waits
/// for no client.
final class ConsoleRelay: Sendable {
    fileprivate struct Line {
        let machine: String
        let stream: SharedDescriptor
        let log: ConsoleLog
        let listener: SocketListener?
        var clients: [ConsoleClient] = []
        /// The guest takes no more input just now.
        var guestIsFull = false
        /// When clients that are behind are given up; `nil` while the machine runs.
        var deadline: Int64?

        /// Whether there is more to wait for than output of the guest and new clients.
        var isSpecial: Bool { !clients.isEmpty || guestIsFull || deadline != nil }

        var isFinished: Bool {
            guard let deadline else { return false }
            return !clients.contains(where: \.isBehind) || SystemClock.monotonic() >= deadline
        }
    }

    private struct Lines {
        /// By the number of the guest's stream.
        var all: [CInt: Line] = [:]
        /// The number of the guest's stream by that of the listener.
        var listeners: [CInt: CInt] = [:]
        /// Those for which ``Line/isSpecial`` holds. With many machines the others have mostly nothing to say, and are not looked at.
        var special: Set<CInt> = []

        func number(of machine: String) -> CInt? { all.first { $0.value.machine == machine && $0.value.deadline == nil }?.key }

        /// After a change of one.
        mutating func settle(_ number: CInt) {
            guard let line = all[number] else { return }
            let isFinished = line.isFinished
            if isFinished { all[number] = nil }
            if line.isSpecial && !isFinished { special.insert(number) } else { special.remove(number) }
        }
    }
    private let lines = Mutex(Lines())
    private let wake: EventDescriptor
    /// The streams and listeners of all machines that run.
    private let watched: WatchedDescriptors

    /// What a client that attaches is shown of the past.
    static let recall = 16 << 10
    /// How long a client has to take what a machine sent before its end.
    private static let patience: Int64 = 10_000_000_000

    init() throws(Errno) {
        wake = try EventDescriptor()
        watched = try WatchedDescriptors()
    }

    func start() throws(Errno) {
        try SystemThread(name: "console") { [self] in
            while true { serveOnce() }
        }.detach()
    }

    func add(machine: String, stream: SharedDescriptor, logPath: String, listener: SocketListener?) throws(Errno) {
        try stream.descriptor.setNonBlocking(true)
        let log = try ConsoleLog(path: logPath)
        try lines.withLock { lines throws(Errno) in
            try watched.add(stream.number)
            if let listener {
                try watched.add(listener.file.number)
                lines.listeners[listener.file.number] = stream.number
            }
            lines.all[stream.number] = Line(machine: machine, stream: stream, log: log, listener: listener)
        }
    }

    /// The machine is off: takes in what is left, and lets the clients go once they have it.
    func remove(machine: String) {
        lines.withLock { lines in
            guard let number = lines.number(of: machine) else { return }
            watched.remove(number)
            if let listener = lines.all[number]?.listener {
                listener.remove()
                watched.remove(listener.file.number)
                lines.listeners[listener.file.number] = nil
            }
            lines.all[number]?.drain()
            lines.all[number]?.deadline = SystemClock.monotonic() + Self.patience
            lines.settle(number)
        }
        wake.signal()
    }

    /// Attaches a client: the newest part of the past, then everything to come. `pending`: what it has typed already.
    func attach(machine: String, _ connection: SharedDescriptor, pending: [UInt8]) {
        lines.withLock { lines in
            guard let number = lines.number(of: machine) else { return }
            if !pending.isEmpty { try? lines.all[number]?.stream.descriptor.writeAll(pending) }
            lines.all[number]?.attach(connection)
            lines.settle(number)
        }
        wake.signal()
    }

    private func serveOnce() {
        var poll = Poll([(wake.descriptor.number, .readable), (watched.number, .readable)])
        var deadline: Int64?
        // Descriptors that are waited for here stay open until the wait is over.
        let special = lines.withLock { lines in lines.special.compactMap { lines.all[$0] } }
        for line in special {
            if let end = line.deadline { deadline = min(deadline ?? end, end) } else if line.guestIsFull { poll.add(line.stream.number, .writable) }
            for client in line.clients {
                poll.add(client.connection.number, client.interest(guestTakes: !line.guestIsFull && line.deadline == nil))
            }
        }
        _ = try? poll.wait(timeout: deadline.map { .nanoseconds(max(0, $0 - SystemClock.monotonic())) })
        wake.take()
        withExtendedLifetime(special) {
            lines.withLock { lines in
                let ready = watched.ready().map { lines.listeners[$0] ?? $0 }
                for number in lines.special.union(ready) {
                    lines.all[number]?.serve()
                    lines.settle(number)
                }
            }
        }
    }
}

extension ConsoleRelay.Line {
    fileprivate mutating func attach(_ connection: SharedDescriptor) {
        var client = ConsoleClient(connection)
        client.give(log.tail(ConsoleRelay.recall))
        clients.append(client)
    }

    fileprivate mutating func serve() {
        if deadline == nil {
            while let connection = listener?.accept() { attach(connection) }
            drain()
            guestIsFull = false
        }
        for index in clients.indices {
            clients[index].flush()
            if deadline == nil, !clients[index].passInput(to: stream) { guestIsFull = true }
            clients[index].lookForEnd(guestTakes: !guestIsFull && deadline == nil)
        }
        clients.removeAll(where: \.isGone)
    }

    /// Guest to log and clients.
    fileprivate mutating func drain() {
        // A worker that writes faster than this reads gets its turn like any other.
        for _ in 0..<16 {
            guard let bytes = try? UnixSocket.peek(stream.descriptor, upTo: 16 << 10), !bytes.isEmpty else { return }
            log.append(bytes)
            for index in clients.indices { clients[index].give(bytes) }
            _ = try? stream.descriptor.read(upTo: bytes.count)
        }
    }
}

/// The newest output of one console, in a file of at most ``limit`` bytes and its predecessor. Nothing of it is kept in memory.
final class ConsoleLog: Sendable {
    private struct State {
        var file: SharedDescriptor
        var size: Int
    }
    private let path: String
    private let state: Mutex<State>

    static let limit = 1 << 20

    init(path: String) throws(Errno) {
        self.path = path
        let file = SharedDescriptor(try OwnedDescriptor.open(path, .append))
        let size = try file.descriptor.size()
        state = Mutex(State(file: file, size: size))
    }

    func append(_ bytes: [UInt8]) {
        state.withLock { state in
            if state.size + bytes.count > Self.limit, (try? FileSystem.rename(path, to: path + ".1")) != nil,
                let fresh = try? OwnedDescriptor.open(path, .append)
            {
                state.file = SharedDescriptor(fresh)
                state.size = 0
            }
            try? state.file.descriptor.writeAll(bytes)
            state.size += bytes.count
        }
    }

    /// The last `count` bytes, or what there is of them.
    func tail(_ count: Int) -> [UInt8] {
        state.withLock { _ in
            let newest = Self.end(of: path, count)
            return newest.count < count ? Self.end(of: path + ".1", count - newest.count) + newest : newest
        }
    }

    private static func end(of path: String, _ count: Int) -> [UInt8] {
        guard let file = try? OwnedDescriptor.open(path), let size = try? file.size() else { return [] }
        return (try? file.read(upTo: count, at: max(0, size - count))) ?? []
    }
}
