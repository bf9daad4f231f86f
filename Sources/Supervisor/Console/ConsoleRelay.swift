internal import Control
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Reads every machine's console, keeps a bounded log of it, and passes it on to whoever is attached.
///
/// The stream is in custody: while no supervisor runs it collects in the socket, and nothing is lost until that is full. One thread
/// serves all machines; a client that does not read is dropped, never waited for.
final class ConsoleRelay: Sendable {
    private struct Line {
        let machine: String
        let stream: SharedDescriptor
        let log: ConsoleLog
        var clients: [SharedDescriptor] = []
    }
    private let lines = Mutex<[Line]>([])
    private let wake: EventDescriptor

    /// What a client that attaches is shown of the past.
    static let recall = 16 << 10

    init() throws(Errno) {
        wake = try EventDescriptor()
    }

    func start() throws(Errno) {
        try SystemThread(name: "console") { [self] in
            while true { serveOnce() }
        }.detach()
    }

    func add(machine: String, stream: SharedDescriptor, logPath: String) throws(Errno) {
        try stream.descriptor.setNonBlocking(true)
        let log = try ConsoleLog(path: logPath)
        lines.withLock { $0.append(Line(machine: machine, stream: stream, log: log)) }
        wake.signal()
    }

    /// Takes in what is left and lets the clients go.
    func remove(machine: String) {
        lines.withLock { lines in
            for index in lines.indices where lines[index].machine == machine { Self.drain(&lines[index]) }
            lines.removeAll { $0.machine == machine }
        }
        wake.signal()
    }

    /// Attaches a client: the newest part of the past, then everything to come. `pending`: what it has typed already.
    func attach(machine: String, _ connection: SharedDescriptor, pending: [UInt8]) {
        lines.withLock { lines in
            guard let index = lines.firstIndex(where: { $0.machine == machine }) else { return }
            _ = try? connection.descriptor.write(lines[index].log.tail(Self.recall).span)
            if !pending.isEmpty { try? lines[index].stream.descriptor.writeAll(pending) }
            lines[index].clients.append(connection)
        }
        wake.signal()
    }

    private func serveOnce() {
        let watched = lines.withLock { lines in lines.map { (stream: $0.stream, clients: $0.clients) } }
        var poll = Poll([(wake.descriptor.number, .readable)])
        for line in watched {
            poll.add(line.stream.number)
            for client in line.clients { poll.add(client.number) }
        }
        _ = try? poll.wait(timeout: nil)
        wake.take()
        lines.withLock { lines in
            for index in lines.indices {
                Self.drain(&lines[index])
                Self.takeInput(&lines[index])
            }
        }
    }

    /// Guest to log and clients.
    private static func drain(_ line: inout Line) {
        // A worker that writes faster than this reads gets its turn like any other.
        for _ in 0..<16 {
            guard let bytes = try? line.stream.descriptor.read(upTo: 16 << 10), !bytes.isEmpty else { return }
            line.log.append(bytes)
            line.clients.removeAll { client in (try? client.descriptor.write(bytes.span)) != bytes.count }
        }
    }

    /// Clients to guest. A client at its end, or in error, is dropped.
    private static func takeInput(_ line: inout Line) {
        let stream = line.stream
        line.clients.removeAll { client in
            do {
                let bytes = try client.descriptor.read(upTo: 4096)
                if bytes.isEmpty { return true }
                _ = try? stream.descriptor.write(bytes.span)
                return false
            } catch Errno.wouldBlock {
                return false
            } catch {
                return true
            }
        }
    }
}

/// The newest output of one console, in a file of at most twice ``half`` bytes and its predecessor.
final class ConsoleLog: Sendable {
    private struct State {
        var file: SharedDescriptor
        var size: Int
        var recent: [UInt8]
    }
    private let path: String
    private let state: Mutex<State>

    static let limit = 1 << 20

    init(path: String) throws(Errno) {
        self.path = path
        let file = SharedDescriptor(try OwnedDescriptor.open(path, .append))
        let size = try file.descriptor.size()
        let past = try OwnedDescriptor.open(path).read(upTo: ConsoleRelay.recall, at: max(0, size - ConsoleRelay.recall))
        state = Mutex(State(file: file, size: size, recent: past))
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
            state.recent.append(contentsOf: bytes)
            if state.recent.count > 2 * ConsoleRelay.recall { state.recent.removeFirst(state.recent.count - ConsoleRelay.recall) }
        }
    }

    func tail(_ count: Int) -> [UInt8] { state.withLock { Array($0.recent.suffix(count)) } }
}
