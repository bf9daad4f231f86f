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
    private struct Line {
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

        /// Whether one of these is its own, or others may have had something to say.
        func concerns(_ ready: Set<CInt>) -> Bool {
            isSpecial || ready.contains(stream.number) || (listener.map { ready.contains($0.file.number) } ?? false)
        }

        var isFinished: Bool {
            guard let deadline else { return false }
            return !clients.contains(where: \.isBehind) || SystemClock.monotonic() >= deadline
        }
    }
    private let lines = Mutex<[Line]>([])
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
            if let listener { try watched.add(listener.file.number) }
            lines.append(Line(machine: machine, stream: stream, log: log, listener: listener))
        }
    }

    /// The machine is off: takes in what is left, and lets the clients go once they have it.
    func remove(machine: String) {
        let deadline = SystemClock.monotonic() + Self.patience
        lines.withLock { lines in
            for index in lines.indices where lines[index].machine == machine && lines[index].deadline == nil {
                lines[index].listener?.remove()
                watched.remove(lines[index].stream.number)
                if let listener = lines[index].listener { watched.remove(listener.file.number) }
                Self.drain(&lines[index])
                lines[index].deadline = deadline
            }
            lines.removeAll(where: \.isFinished)
        }
        wake.signal()
    }

    /// Attaches a client: the newest part of the past, then everything to come. `pending`: what it has typed already.
    func attach(machine: String, _ connection: SharedDescriptor, pending: [UInt8]) {
        lines.withLock { lines in
            guard let index = lines.firstIndex(where: { $0.machine == machine && $0.deadline == nil }) else { return }
            if !pending.isEmpty { try? lines[index].stream.descriptor.writeAll(pending) }
            Self.attach(connection, to: &lines[index])
        }
        wake.signal()
    }

    private static func attach(_ connection: SharedDescriptor, to line: inout Line) {
        var client = ConsoleClient(connection)
        client.give(line.log.tail(recall))
        line.clients.append(client)
    }

    private func serveOnce() {
        var poll = Poll([(wake.descriptor.number, .readable), (watched.number, .readable)])
        var deadline: Int64?
        // Descriptors that are waited for here stay open until the wait is over.
        let special = lines.withLock { $0.filter(\.isSpecial) }
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
                let ready = watched.ready()
                // With many machines most have nothing to say.
                for index in lines.indices where lines[index].concerns(ready) { Self.serve(&lines[index]) }
                lines.removeAll(where: \.isFinished)
            }
        }
    }

    private static func serve(_ line: inout Line) {
        if line.deadline == nil {
            while let connection = line.listener?.accept() { attach(connection, to: &line) }
            drain(&line)
            line.guestIsFull = false
        }
        for index in line.clients.indices {
            line.clients[index].flush()
            if line.deadline == nil, !line.clients[index].passInput(to: line.stream) { line.guestIsFull = true }
            line.clients[index].lookForEnd(guestTakes: !line.guestIsFull && line.deadline == nil)
        }
        line.clients.removeAll(where: \.isGone)
    }

    /// Guest to log and clients.
    private static func drain(_ line: inout Line) {
        // A worker that writes faster than this reads gets its turn like any other.
        for _ in 0..<16 {
            guard let bytes = try? UnixSocket.peek(line.stream.descriptor, upTo: 16 << 10), !bytes.isEmpty else { return }
            line.log.append(bytes)
            for index in line.clients.indices { line.clients[index].give(bytes) }
            _ = try? line.stream.descriptor.read(upTo: bytes.count)
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
