internal import Handover
internal import LinuxSystem

/// The machine's commit word as its worker uses it: each change is a compare-and-swap, and whoever loses obeys.
struct Commitment {
    private let word: SharedWord
    let generation: UInt32

    init(_ word: SharedWord, generation: UInt32) {
        self.word = word
        self.generation = generation
    }

    /// What the word says; `nil` before the first worker.
    var current: CommitWord? { CommitWord(rawValue: word.load()) }

    /// What the word says, for people.
    var said: String { current.map(\.description) ?? "nothing" }

    /// running → frozen, as saved is said. Returns whether somebody waited for that, to take over; `nil` where it was lost.
    func freeze() -> Bool? {
        guard change(CommitWord(.running, generation), to: CommitWord(.frozen, generation)) else { return nil }
        return word.wake() > 0
    }

    /// Waits until an earlier generation has frozen, and perhaps been committed away from already, at most until `deadline`
    /// (CLOCK_MONOTONIC). Returns the generation that the word names then; `nil` when nobody froze.
    func waitForFreeze(until deadline: Int64) -> UInt32? {
        while true {
            let value = word.load()
            guard let current = CommitWord(rawValue: value) else { return nil }
            if current.state == .frozen || current == CommitWord(.committed, generation) { return current.generation }
            if current.generation >= generation { return nil }
            let left = deadline - SystemClock.monotonic()
            if left <= 0 { return nil }
            word.wait(while: value, timeout: .nanoseconds(left))
        }
    }

    /// frozen → running: the way back, as long as nobody has committed.
    func thaw() -> Bool { change(CommitWord(.frozen, generation), to: CommitWord(.running, generation)) }

    /// frozen → committed, by a worker that was told to take over. The supervisor may have done it in its name.
    func commit(from writer: UInt32) -> Bool {
        change(CommitWord(.frozen, writer), to: CommitWord(.committed, generation)) || current == CommitWord(.committed, generation)
    }

    /// committed → running, before the first KVM_RUN.
    func takeOver() -> Bool { change(CommitWord(.committed, generation), to: CommitWord(.running, generation)) }

    /// Power-on: no worker runs. The word may name this generation already, or nobody.
    func powerOn() -> Bool {
        current == CommitWord(.running, generation) || takeOver()
            || word.exchange(expected: 0, desired: CommitWord(.running, generation).rawValue).exchanged
    }

    private func change(_ old: CommitWord, to new: CommitWord) -> Bool {
        word.exchange(expected: old.rawValue, desired: new.rawValue).exchanged
    }
}
