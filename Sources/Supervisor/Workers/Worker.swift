package import Channel
internal import Handover
package import LinuxSystem
internal import Synchronization

/// Why a worker did not do what it was ordered to.
package enum WorkerFailure: Error, Sendable, Equatable, CustomStringConvertible {
    case ended(ProcessExit)
    case timedOut(Duration)
    /// It said something that a worker in its place does not say.
    case misbehaved(String)
    case refused(String)
    /// It says that it cannot go on.
    case failed(String)
    /// The operator asked for the end of the handover.
    case abortRequested

    package var description: String {
        switch self {
        case .ended(let exit): "the worker \(exit)"
        case .timedOut(let limit): "no answer within \(limit.milliseconds) ms"
        case .misbehaved(let what): what
        case .refused(let reason), .failed(let reason): reason
        case .abortRequested: "the operator asked for it"
        }
    }
}

extension Duration {
    /// Milliseconds, for people.
    var milliseconds: Int64 { nanoseconds / 1_000_000 }
}

/// One worker process of one machine and generation, as the supervisor sees it. Used by the machine's own thread only.
package final class Worker: @unchecked Sendable {
    package let generation: UInt32
    package let image: WorkerImage
    package let pid: Int32
    package let process: ProcessDescriptor
    package let channel: WorkerChannel
    private var sequence: UInt32
    /// Reports that nobody asked for, oldest first.
    private(set) var unsolicited: [Report] = []
    /// What it said when it could not go on. It stays so.
    private var failure: String?
    private var exit: ProcessExit?
    /// A worker that says more than this in one go means harm: it answers each order once, and has little else to say.
    private static let mostAtOnce = 1000

    /// `sequence`: where to go on counting; an adopted worker has answered orders of an earlier supervisor process.
    init(generation: UInt32, image: WorkerImage, pid: Int32, process: consuming ProcessDescriptor, channel: WorkerChannel, sequence: UInt32 = 0) {
        self.generation = generation
        self.image = image
        self.pid = pid
        self.process = process
        self.channel = channel
        self.sequence = sequence
    }

    /// How the process ended; `nil` while it has not.
    var ended: ProcessExit? {
        if exit == nil, process.hasEnded() { exit = process.reap() ?? .unknown }
        return exit
    }

    /// Sends an order and waits for its report, at most `limit`. `abort` becoming readable ends the wait.
    func order(
        _ order: Order, descriptors: [SharedDescriptor] = [], within limit: Duration, abort: CInt? = nil
    ) throws(WorkerFailure) -> Report {
        try report(to: try post(order, descriptors: descriptors), within: limit, abort: abort)
    }

    /// Sends an order and waits for nothing. Returns the sequence number of the report to come.
    func post(_ order: Order, descriptors: [SharedDescriptor] = []) throws(WorkerFailure) -> UInt32 {
        sequence &+= 1
        do {
            try channel.send(order, generation: generation, sequence: sequence, descriptors: descriptors)
        } catch {
            if let exit = ended { throw .ended(exit) }
            throw .misbehaved("it takes no orders: \(error)")
        }
        return sequence
    }

    /// Lends descriptors, as many at a time as a message carries, and makes sure that the worker holds them all. It held none of these names.
    func lend(_ lease: [(entry: ManifestEntry, descriptor: SharedDescriptor)], within limit: Duration, abort: CInt? = nil) throws(WorkerFailure) {
        var held = 0
        while held < lease.count {
            let part = lease[held..<min(held + UnixSocket.mostDescriptors, lease.count)]
            held += part.count
            let order = Order.lend(entries: part.map(\.entry), total: UInt32(lease.count))
            let report = try self.order(order, descriptors: part.map(\.descriptor), within: limit, abort: abort)
            guard report == .lent(held: UInt32(held)) else { throw .misbehaved("it does not hold what it was lent") }
        }
    }

    /// Waits for the report to order `expected`, or for `hello` when that is 0.
    func report(to expected: UInt32, within limit: Duration, abort: CInt? = nil) throws(WorkerFailure) -> Report {
        let deadline = SystemClock.monotonic() + limit.nanoseconds
        while true {
            if let report = try nextReport(expected) { return report }
            let left = deadline - SystemClock.monotonic()
            if left <= 0 { throw .timedOut(limit) }
            var poll = Poll([(channel.number, .readable), (process.descriptor.number, .readable)])
            if let abort { poll.add(abort) }
            do { try poll.wait(timeout: .nanoseconds(left)) } catch { throw .failed("cannot wait: \(error)") }
            if abort != nil, poll.result(at: 2).contains(.readable) { throw .abortRequested }
            if poll.result(at: 0).isEmpty, !poll.result(at: 1).isEmpty, let exit = ended { throw .ended(exit) }
        }
    }

    /// Reads what has come, up to the report awaited. Anything nobody asked for is kept in ``unsolicited``.
    private func nextReport(_ expected: UInt32) throws(WorkerFailure) -> Report? {
        var taken = 0
        while let message = try receive() {
            taken += 1
            if taken > Self.mostAtOnce || unsolicited.count > Self.mostAtOnce { throw .misbehaved("it reports far more than it was asked for") }
            if message.envelope.generation != generation {
                throw .misbehaved("it says it is generation \(message.envelope.generation), it was started as \(generation)")
            }
            let sequence = message.envelope.sequence
            if case .failed(let reason) = message.body {
                failure = reason
                throw .failed(reason)
            }
            if sequence == expected {
                if case .refused(let reason) = message.body { throw .refused(reason) }
                return message.body
            }
            if sequence == 0 { unsolicited.append(message.body) }
            // Anything else answers an order that is no longer waited for.
        }
        return nil
    }

    private func receive() throws(WorkerFailure) -> Message<Report>? {
        do {
            return try channel.receiveWaiting()?.message
        } catch .closed {
            _ = process.waitForEnd(timeout: .seconds(1))
            if let exit = ended { throw .ended(exit) }
            throw .misbehaved("it closed its session")
        } catch {
            throw .misbehaved("\(error)")
        }
    }

    /// Whether it has said something that nobody has acted on: it came while an order was answered.
    var hasNews: Bool { failure != nil || !unsolicited.isEmpty }
    /// Whether it has said that its guest is through with this run.
    var guestHasEnded: Bool { unsolicited.contains(.poweredOff) || unsolicited.contains(.resetRequested) }

    /// Takes in what the worker says unasked, without waiting.
    func collectUnsolicited() throws(WorkerFailure) -> [Report] {
        if let failure { throw .failed(failure) }
        _ = try nextReport(.max)
        defer { unsolicited.removeAll() }
        return unsolicited
    }

    /// Stops every thread of it. It may be in the middle of anything, but does nothing more.
    func stop() { try? process.send(.stop) }
    func continueAfterStop() { try? process.send(.continue) }

    /// Ends it and waits for the end to be seen; `false` when it is not seen in time.
    @discardableResult
    func kill(within limit: Duration) -> Bool {
        try? process.send(.kill)
        return process.waitForEnd(timeout: limit) && ended != nil
    }
}
