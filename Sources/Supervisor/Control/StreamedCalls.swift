internal import Control
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Steps on their way from the threads of a handover to the thread of the client that follows it.
///
/// The two never wait for each other: steps pile up to a bound, and the handover goes on when nobody takes them.
final class StepQueue: Sendable {
    private struct State {
        var steps: [Step] = []
        var outcome: Result<HandoverRecord, ControlError>?
        var isAbandoned = false
    }

    /// More steps than a handover has, revert included.
    private static let capacity = 1024
    private let state = Mutex(State())
    /// Readable when there is something to take.
    let arrivals: EventDescriptor

    init() throws(Errno) { arrivals = try EventDescriptor() }

    func add(_ step: Step) {
        let added = state.withLock { state in
            if state.isAbandoned || state.steps.count == Self.capacity { return false }
            state.steps.append(step)
            return true
        }
        if added { arrivals.signal() }
    }

    func finish(_ outcome: Result<HandoverRecord, ControlError>) {
        state.withLock { $0.outcome = outcome }
        arrivals.signal()
    }

    /// The steps that came since, and the outcome when there is one: it comes with the last steps.
    func take() -> (steps: [Step], outcome: Result<HandoverRecord, ControlError>?) {
        arrivals.take()
        return state.withLock { state in
            defer { state.steps = [] }
            return (state.steps, state.outcome)
        }
    }

    /// Nobody takes steps any more.
    func abandon() {
        state.withLock { state in
            state.isAbandoned = true
            state.steps = []
        }
    }
}

extension CallHandler {
    typealias Handover = @Sendable (_ progress: @escaping @Sendable (Step) -> Void) throws(ControlError) -> HandoverRecord

    /// Runs a handover on a thread of its own and tells its steps. When the client leaves, it is the telling that ends.
    func stream(_ call: Call, on connection: inout Connection, _ handover: @escaping Handover) throws {
        let queue = try StepQueue()
        let thread = try SystemThread(name: "control-call") {
            queue.finish(Result { () throws(ControlError) in try handover { queue.add($0) } })
        }
        thread.detach()
        while !connection.isBroken {
            connection.waitForClientOr(queue.arrivals.descriptor.number)
            let (steps, outcome) = queue.take()
            if call.more {
                for step in steps { connection.send(Reply.frame(Results.Progress(step: step), continues: true)) }
            }
            guard let outcome else { continue }
            let record = try outcome.get()
            if !call.oneway { connection.send(Reply.frame(Results.Progress(handover: record))) }
            return
        }
        queue.abandon()
    }

    /// Sends kept events, and those to come while the client stays.
    func sendEvents(_ call: Call, on connection: inout Connection) throws {
        guard call.more else { throw ServiceError.expectedMore }
        let wanted = try call.decode(Parameters.Events.self)
        let follow = wanted.follow ?? false
        var after = wanted.after
        repeat {
            // Between batches the client is looked at, so this is also how long one that left keeps its place.
            let batch = try service.events(after: after, machine: wanted.machine, waiting: follow ? .seconds(1) : .zero)
            for event in batch.events { connection.send(Reply.frame(Results.Events(event: event), continues: true)) }
            after = batch.last
            connection.checkForClient()
        } while follow && !connection.isBroken
        if !connection.isBroken { connection.send(Reply.frame(Results.Events())) }
    }
}
