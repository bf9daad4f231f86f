package import Control
internal import LinuxSystem
internal import Synchronization

/// The newest events of this process, for whoever asks or waits. Bounded; safe from any thread.
package final class EventLog: Sendable {
    private struct State {
        var events: [Event] = []
        var last = 0
    }

    private let capacity: Int
    private let now: @Sendable () -> Int
    private let state = Mutex(State())
    /// The low half of the newest sequence; changes with every event.
    private let changes = Futex()

    /// Keeps `capacity` events. `now`: nanoseconds since 1970.
    package init(capacity: Int = 256, now: @escaping @Sendable () -> Int = { Int(SystemClock.wall()) }) {
        self.capacity = max(1, capacity)
        self.now = now
    }

    /// Adds an event, and wakes whoever waits for one.
    package func append(
        _ kind: Event.Kind, machine: String? = nil, generation: Int? = nil, detail: String? = nil, step: Step? = nil,
        handover: HandoverRecord? = nil
    ) {
        state.withLock { state in
            state.last += 1
            if state.events.count == capacity { state.events.removeFirst() }
            state.events.append(
                Event(
                    sequence: state.last, atNanoseconds: now(), machine: machine, generation: generation, kind: kind, detail: detail,
                    step: step, handover: handover))
            changes.set(UInt32(truncatingIfNeeded: state.last))
        }
    }

    /// What ``SupervisorService/events(after:machine:waiting:)`` promises.
    package func events(after: Int?, machine: String?, waiting: Duration) -> EventBatch {
        let end = SystemClock.monotonic() + waiting.nanoseconds
        while true {
            let seen = changes.value
            let batch = state.withLock { state in
                // A sequence from the future is one of an earlier process: everything here is new to that client.
                let start = after.map { $0 > state.last ? 0 : $0 } ?? 0
                let wanted = state.events.filter { $0.sequence > start && (machine == nil || $0.machine == machine) }
                return EventBatch(events: wanted, last: state.last)
            }
            let left = end - SystemClock.monotonic()
            if !batch.events.isEmpty || left <= 0 { return batch }
            changes.wait(while: seen, timeout: .nanoseconds(left))
        }
    }
}
