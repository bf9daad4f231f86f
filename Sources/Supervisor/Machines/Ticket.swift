internal import Control
internal import LinuxSystem
internal import Synchronization

/// What somebody waits for: progress, then one result. The waiting side may leave at any time; the work goes on.
final class Ticket<Value: Sendable>: Sendable {
    private struct State {
        var steps: [Control.Step] = []
        var result: Result<Value, ControlError>?
    }
    private let state = Mutex(State())
    private let changes = Futex()
    private let whenFinished: @Sendable () -> Void

    /// `whenFinished`: done before anybody hears of the result.
    init(whenFinished: @escaping @Sendable () -> Void) { self.whenFinished = whenFinished }

    func report(_ step: Control.Step) {
        state.withLock { $0.steps.append(step) }
        changes.set(changes.value &+ 1)
    }

    func finish(_ result: Result<Value, ControlError>) {
        whenFinished()
        state.withLock { $0.result = $0.result ?? result }
        changes.set(changes.value &+ 1)
    }

    /// Passes on every step until the result is there.
    func wait(progress: (Control.Step) -> Void = { _ in }) throws(ControlError) -> Value {
        while true {
            let seen = changes.value
            let (steps, result) = state.withLock { state in
                defer { state.steps.removeAll() }
                return (state.steps, state.result)
            }
            for step in steps { progress(step) }
            if let result { return try result.get() }
            changes.wait(while: seen)
        }
    }
}
