/// The versions of one section that a worker can write and read.
package struct SectionRange: Sendable, Equatable {
    package let name: String
    package let writes: ClosedRange<UInt16>
    package let reads: ClosedRange<UInt16>

    package init(_ name: String, writes: ClosedRange<UInt16>, reads: ClosedRange<UInt16>) {
        self.name = name
        self.writes = writes
        self.reads = reads
    }
}

/// What a worker image says of itself, as far as checkpoints go.
package struct SectionAbilities: Sendable, Equatable {
    /// Version of the image, for messages.
    package let version: String
    package let sections: [SectionRange]

    package init(version: String, sections: [SectionRange]) {
        self.version = version
        self.sections = sections
    }

    package func range(_ name: String) -> SectionRange? { sections.first { $0.name == name } }
}

/// The version at which each section is written: the highest that both sides know.
package struct SectionVersions: Sendable, Equatable {
    private let versions: [String: UInt16]

    package init(_ versions: [String: UInt16]) { self.versions = versions }

    /// What a worker writes when it writes for itself.
    package init(newestOf sections: [SectionRange]) {
        versions = Dictionary(sections.map { ($0.name, $0.writes.upperBound) }, uniquingKeysWith: max)
    }

    /// The version agreed for a section, nil when it was not part of the agreement.
    package subscript(name: String) -> UInt16? { versions[name] }

    /// In order of the names.
    package var all: [(name: String, version: UInt16)] { versions.sorted { $0.key < $1.key }.map { (name: $0.key, version: $0.value) } }
}

/// Why a section cannot go from one worker to another, and what would help.
package struct SectionRefusal: Sendable, Equatable, CustomStringConvertible {
    package let section: String
    package let reason: String
    package let remedy: String

    /// Two lines: the reason, and the remedy after an arrow.
    package var description: String { "section \(section): \(reason)\n→ \(remedy)" }
}

/// The outcome of comparing what one worker writes with what another reads.
package enum SectionNegotiation: Sendable, Equatable {
    case agreed(SectionVersions)
    /// Never empty; in the order of the outgoing worker's sections.
    case refused([SectionRefusal])

    /// Finds for each section of the outgoing worker the highest version it writes and the incoming one reads.
    ///
    /// - Parameters:
    ///   - outgoing: only the sections this machine has.
    ///   - intermediates: other images at hand, of which a refusal may recommend one.
    package init(outgoing: SectionAbilities, incoming: SectionAbilities, intermediates: [SectionAbilities] = []) {
        var versions: [String: UInt16] = [:]
        var refusals: [SectionRefusal] = []
        for range in outgoing.sections {
            let reads = incoming.range(range.name)?.reads
            if let reads, reads.overlaps(range.writes) {
                versions[range.name] = min(reads.upperBound, range.writes.upperBound)
            } else {
                refusals.append(SectionRefusal(range, from: outgoing, to: incoming, over: intermediates))
            }
        }
        self = refusals.isEmpty ? .agreed(SectionVersions(versions)) : .refused(refusals)
    }
}

extension SectionRefusal {
    fileprivate init(_ range: SectionRange, from outgoing: SectionAbilities, to incoming: SectionAbilities, over others: [SectionAbilities]) {
        section = range.name
        let target = incoming.range(range.name)?.reads
        let reading = target.map { "\(incoming.version) reads version\($0.count > 1 ? "s" : "") \(Checkpoint.versions($0))" }
        reason = "\(reading ?? "\(incoming.version) does not know it"), the machine's worker (\(outgoing.version)) writes \(Checkpoint.versions(range.writes))"
        guard let target else {
            remedy = "choose an image that knows \(range.name)"
            return
        }
        let helper = others.first { other in
            other.range(range.name).map { $0.reads.overlaps(range.writes) && $0.writes.overlaps(target) } ?? false
        }
        if let helper, let bridge = helper.range(range.name) {
            remedy =
                "go to \(helper.version) first (reads \(Checkpoint.versions(bridge.reads)), writes \(Checkpoint.versions(bridge.writes)))"
        } else {
            remedy = "go first to a version that reads one of \(Checkpoint.versions(range.writes)) and writes one of \(Checkpoint.versions(target))"
        }
    }
}
