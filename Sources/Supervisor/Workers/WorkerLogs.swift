internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// What workers write to standard error, in a file of bounded size for each machine.
///
/// A worker writes into a stream whose other end is in custody: it never waits for a log, it cannot fill the host's memory with one, and what it wrote while no
/// supervisor ran is there afterwards, as far as the stream holds it.
final class WorkerLogs: Sendable {
    fileprivate struct Line {
        let machine: String
        let generation: UInt32
        let stream: SharedDescriptor
        let log: ConsoleLog
        var hasEnded = false
    }
    /// By the stream's number. With many workers most have nothing to say, and are not looked at.
    private let lines = Mutex<[CInt: Line]>([:])
    private let watched: WatchedDescriptors

    init() throws(Errno) {
        watched = try WatchedDescriptors()
    }

    func start() throws(Errno) {
        try SystemThread(name: "logs") { [self] in
            while true { serveOnce() }
        }.detach()
    }

    /// The two ends of a worker's log; `far` is the worker's.
    static func stream() throws(Errno) -> (near: SharedDescriptor, far: SharedDescriptor) {
        let pair = try UnixSocket.streamPair()
        let far = pair.far
        let near = SharedDescriptor(pair.takeNear().takeDescriptor())
        try far.descriptor.setNonBlocking(true)
        try near.descriptor.setNonBlocking(true)
        return (near, far)
    }

    /// Goes on with the log at `path`; workers of one machine share it.
    func add(machine: String, generation: UInt32, stream: SharedDescriptor, path: String) throws(Errno) {
        try lines.withLock { lines throws(Errno) in
            let log: ConsoleLog
            if let other = lines.values.first(where: { $0.machine == machine }) { log = other.log } else { log = try ConsoleLog(path: path) }
            try watched.add(stream.number)
            lines[stream.number] = Line(machine: machine, generation: generation, stream: stream, log: log)
        }
    }

    /// The worker has ended: what it wrote last is in the file when this returns.
    func finish(machine: String, generation: UInt32) {
        lines.withLock { lines in
            guard let number = lines.first(where: { $0.value.machine == machine && $0.value.generation == generation })?.key else { return }
            lines[number]?.drain()
            watched.remove(number)
            lines[number] = nil
        }
    }

    private func serveOnce() {
        _ = try? Poll.one(watched.number, timeout: nil)
        lines.withLock { lines in
            for number in watched.ready() {
                lines[number]?.drain()
                if lines[number]?.hasEnded == true {
                    watched.remove(number)
                    lines[number] = nil
                }
            }
        }
    }
}

extension WorkerLogs.Line {
    fileprivate mutating func drain() {
        for _ in 0..<16 {
            guard let bytes = try? stream.descriptor.read(upTo: 16 << 10) else { return }
            if bytes.isEmpty {
                hasEnded = true
                return
            }
            log.append(bytes)
        }
    }
}
