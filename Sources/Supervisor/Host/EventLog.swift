internal import Control
internal import LinuxSystem
internal import Synchronization

/// The newest events of this supervisor process, for whoever asks or follows.
final class EventLog: Sendable {
    private struct State {
        var next = 1
        var events: [Event] = []
    }
    private let state = Mutex(State())
    private let changes = Futex()

    /// How many are kept.
    static let capacity = 4096

    func add(
        _ kind: Event.Kind, machine: String? = nil, generation: UInt32? = nil, detail: String? = nil, step: Control.Step? = nil,
        handover: HandoverRecord? = nil
    ) {
        let at = Int(SystemClock.wall())
        state.withLock { state in
            state.events.append(
                Event(
                    sequence: state.next, atNanoseconds: at, machine: machine, generation: generation.map(Int.init), kind: kind,
                    detail: detail, step: step, handover: handover))
            state.next += 1
            if state.events.count > Self.capacity { state.events.removeFirst(Self.capacity / 4) }
        }
        changes.set(changes.value &+ 1)
    }

    /// Passes on the events kept with a number above `after` and, when following, every later one until `receive` returns false.
    /// `idle` is asked about once a second while nothing happens; false ends the wait.
    func read(after: Int = 0, machine: String?, follow: Bool, idle: () -> Bool, receive: (Event) -> Bool) {
        var last = after
        while true {
            let seen = changes.value
            let fresh = state.withLock { state in state.events.filter { $0.sequence > last } }
            for event in fresh {
                last = event.sequence
                if let machine, event.machine != machine { continue }
                if !receive(event) { return }
            }
            if !follow { return }
            if !changes.waitUntil(not: seen, timeout: .seconds(1)), !idle() { return }
        }
    }
}
