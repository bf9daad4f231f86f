internal import Control

/// The images a machine came by: where rollback and revert go, and what must stay in custody for them.
struct ImageTrail: Sendable {
    private var images: [WorkerImage] = []

    /// So many steps back are kept.
    static let depth = 4

    /// Where a rollback goes.
    var newest: WorkerImage? { images.last }
    var digests: [String] { images.map(\.description.digest) }

    /// The machine moved from one image to another.
    mutating func move(from past: WorkerImage, to present: WorkerImage, kind: HandoverRecord.Kind) {
        if past.isSame(as: present) { return }
        switch kind {
        case .upgrade:
            images.append(past)
            if images.count > Self.depth { images.removeFirst() }
        case .rollback, .revert: stepBack(to: present)
        }
    }

    /// The machine went back to `image`, however that came about: what was left behind is no place to return to.
    mutating func stepBack(to image: WorkerImage) {
        if let last = images.last, last.isSame(as: image) { images.removeLast() }
    }
}
