internal import Control
internal import LinuxSystem
internal import SystemPackage

/// A connection to the supervisor, for one call after the other.
struct SupervisorClient: ~Copyable {
    private let socket: UnixSocket
    /// Replies may be longer than calls: histories and lists grow.
    private var decoder = FrameDecoder(limit: 64 << 20)

    /// What came of waiting.
    enum Arrival<Result> {
        case reply(Result, continues: Bool)
        /// Nothing, for as long as was asked to wait.
        case nothing
        case interrupted
    }

    /// Connects to the first socket that somebody answers at.
    init(connectingToOneOf paths: [String]) throws(CommandFailure) {
        var tried: [(path: String, error: Errno)] = []
        for path in paths {
            do throws(Errno) {
                socket = try UnixSocket.connect(to: path)
                return
            } catch {
                tried.append((path, error))
            }
        }
        throw .noSupervisor(tried)
    }

    /// One call, one reply.
    mutating func call<Result: Decodable>(
        _ method: SupervisorMethod, _ parameters: some Encodable, as type: Result.Type
    ) throws(CommandFailure) -> Result {
        send(method, parameters)
        while true {
            if case .reply(let result, _) = try next(type) { return result }
        }
    }

    /// Sends a call whose replies are fetched with ``next(_:timeout:interrupt:)``.
    mutating func send(_ method: SupervisorMethod, _ parameters: some Encodable, more: Bool = false, upgrade: Bool = false) {
        var rest = Call.frame(method.fullName, parameters, more: more, upgrade: upgrade)[...]
        while !rest.isEmpty {
            do throws(Errno) {
                rest = rest.dropFirst(try socket.sendSome(rest))
            } catch .wouldBlock {
                _ = try? Poll.one(socket.descriptor.number, .writable, timeout: nil)
            } catch {
                // The other side has hung up; why, it may have said before.
                return
            }
        }
    }

    /// The next reply. `interrupt`: a descriptor that becomes readable when the caller wants to stop waiting.
    mutating func next<Result: Decodable>(
        _ type: Result.Type, timeout: Duration? = nil, interrupt: CInt? = nil
    ) throws(CommandFailure) -> Arrival<Result> {
        while true {
            if let frame = try nextFrame() { return try Self.read(frame, as: type) }
            var poll = Poll([(socket.descriptor.number, .readable)])
            if let interrupt { poll.add(interrupt) }
            guard let ready = try? poll.wait(timeout: timeout) else { throw .connectionLost }
            if interrupt != nil, !poll.result(at: 1).isEmpty { return .interrupted }
            if ready == 0 { return .nothing }
            guard let arrived = try? socket.descriptor.read(upTo: 65536), !arrived.isEmpty else { throw .connectionLost }
            decoder.append(arrived)
        }
    }

    private mutating func nextFrame() throws(CommandFailure) -> [UInt8]? {
        do { return try decoder.next() } catch { throw .control(error) }
    }

    private static func read<Result: Decodable>(_ frame: [UInt8], as type: Result.Type) throws(CommandFailure) -> Arrival<Result> {
        let reply: Reply
        do { reply = try Reply(frame: frame) } catch { throw .control(error) }
        if let name = reply.error {
            if let error = ServiceError(name: name, parameters: reply.parameters) { throw .service(error) }
            throw .control(ControlError(name: name, parameters: reply.parameters) ?? .failed(reason: "the supervisor reports \(name)"))
        }
        do { return .reply(try reply.decode(type), continues: reply.continues) } catch { throw .control(error) }
    }

    /// Readable when there may be a reply to fetch.
    var number: CInt { socket.descriptor.number }

    /// The raw stream that the connection has become. What arrived of it already comes from ``takePending()``.
    borrowing func stream() throws(Errno) -> OwnedDescriptor { try socket.descriptor.duplicate() }

    /// Bytes that came after the last reply.
    mutating func takePending() -> [UInt8] { decoder.takeRest() }
}
