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

    /// running → frozen, as saved is said.
    func freeze() -> Bool { change(CommitWord(.running, generation), to: CommitWord(.frozen, generation)) }

    /// frozen → running: the way back, as long as nobody has committed.
    func thaw() -> Bool { change(CommitWord(.frozen, generation), to: CommitWord(.running, generation)) }

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
