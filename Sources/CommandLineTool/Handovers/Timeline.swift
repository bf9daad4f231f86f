internal import Control

/// Where the time of one handover went, from its record: the whole of it, and the blackout by itself.
///
/// Nothing is estimated. A time between two steps on two sides is the message that led from one to the other; whatever no step and no message accounts
/// for is *unattributed*.
struct Timeline: Encodable {
    /// From the beginning of the handover to its end, soak left out. The blackout is one part of it.
    let upgrade: Window
    /// From the order to stop that reached the worker to the first KVM_RUN of the next. `nil`: the guest was not stopped, or not started by this handover.
    let blackout: Window?
    /// For as long the guest's requests to disks and networks waited, blackout included. `nil`: they did not.
    let ioHold: Part?

    /// A stretch of time and its parts, in nanoseconds since the beginning of the handover.
    struct Window: Encodable {
        let beginNanoseconds: Int
        let nanoseconds: Int
        let parts: [Part]
        let unattributedNanoseconds: Int
    }

    struct Part: Encodable, Equatable {
        let name: String
        let beginNanoseconds: Int
        /// `nil`: it began and did not end.
        let nanoseconds: Int?
        /// Of the window it belongs to.
        let share: Double?

        /// Where it ends; for what did not end, where it began.
        var end: Int { beginNanoseconds + (nanoseconds ?? 0) }
    }

    static let blackoutName = "blackout"

    init(_ record: HandoverRecord) {
        let spans = record.steps.map(Span.init).sorted { ($0.begin, $0.end ?? .max) < ($1.begin, $1.end ?? .max) }
        let stop = spans.first { $0.name == Phase.park.rawValue }?.begin
        let run = spans.last { $0.name == Phase.running.rawValue }?.end
        var dark: Range<Int>?
        if record.blackoutNanoseconds != nil, let stop, let run, run > stop { dark = stop..<run }
        blackout = dark.map { range in Window(range, spans.filter { $0.overlaps(range) }, messages: true) }
        let light = spans.filter { span in
            guard let dark else { return true }
            return !span.isInside(dark)
        }
        let stopped = dark.map { [Span(name: Self.blackoutName, begin: $0.lowerBound, end: $0.upperBound)] } ?? []
        let all = 0..<max(1, record.totalNanoseconds)
        upgrade = Window(all, (light + stopped).sorted { $0.begin < $1.begin }, messages: false)
        ioHold = record.ioHoldNanoseconds.map { hold in
            let settle = spans.first { $0.name == Phase.settle.rawValue }?.begin ?? 0
            return Part(
                name: "I/O hold", beginNanoseconds: dark.map { max(0, $0.upperBound - hold) } ?? settle, nanoseconds: hold,
                share: Double(hold) / Double(all.count))
        }
    }
}

/// A step as it was recorded, and who was at work.
private struct Span {
    let name: String
    let begin: Int
    let end: Int?

    init(name: String, begin: Int, end: Int?) {
        self.name = name
        self.begin = begin
        self.end = end
    }

    init(_ step: HandoverRecord.StepTime) {
        self.init(name: step.phase, begin: step.beginNanoseconds, end: step.endNanoseconds.map { max($0, step.beginNanoseconds) })
    }

    func overlaps(_ range: Range<Int>) -> Bool { begin < range.upperBound && (end ?? begin) >= range.lowerBound }
    func isInside(_ range: Range<Int>) -> Bool { begin >= range.lowerBound && (end ?? begin) <= range.upperBound }

    enum Side { case supervisor, outgoing, incoming }

    /// Who began it and who ended it; `nil` for a step this version does not know.
    var sides: (first: Side, last: Side)? {
        switch Phase(rawValue: name) {
        case .preflight, .practise, .spawn, .hello, .lend, .saved, .loaded, .commit, .fence, .retire: (.supervisor, .supervisor)
        case .settle, .park, .save: (.outgoing, .outgoing)
        case .map, .populate, .build, .prepared, .load, .running, .takeAddresses, .soak: (.incoming, .incoming)
        case .grant: (.supervisor, .incoming)
        case nil: nil
        }
    }
}

extension Timeline.Window {
    /// `spans` by their beginnings. `messages`: a gap where the side changes is a part of its own.
    fileprivate init(_ range: Range<Int>, _ spans: [Span], messages: Bool) {
        var parts: [Timeline.Part] = []
        var covered = 0
        var cursor = range.lowerBound
        var side: Span.Side?
        func part(_ name: String, _ begin: Int, _ end: Int?) -> Timeline.Part {
            let length = end.map { $0 - begin }
            return .init(
                name: name, beginNanoseconds: begin, nanoseconds: length,
                share: length.map { Double($0) / Double(max(1, range.count)) })
        }
        for (index, span) in spans.enumerated() {
            let begin = min(max(span.begin, range.lowerBound), range.upperBound)
            let end = span.end.map { min(max($0, begin), range.upperBound) }
            // What the supervisor heard of while somebody was already at work on what comes next.
            if messages, let end, end < cursor { continue }
            // What began and has no end, though later steps ended, was only not told apart from them.
            if end == nil, spans[(index + 1)...].contains(where: { $0.end != nil }) { continue }
            if messages, begin > cursor, let last = side, let first = span.sides?.first, last != first {
                parts.append(part("→ \(span.name)", cursor, begin))
                covered += begin - cursor
                cursor = begin
            }
            if end != begin { parts.append(part(span.name, begin, end)) }
            if let end, end > cursor { covered += end - max(cursor, begin) }
            cursor = max(cursor, end ?? begin)
            side = span.sides?.last
        }
        self.init(
            beginNanoseconds: range.lowerBound, nanoseconds: range.count, parts: parts,
            unattributedNanoseconds: max(0, range.count - covered))
    }
}
