import Checkpoint
import Testing

@Suite struct `Negotiating section versions` {
    private let old = SectionAbilities(version: "0.0.9", sections: [SectionRange("virtio-net", writes: 1...3, reads: 1...3), SectionRange("cpu", writes: 2...3, reads: 1...3)])
    private let new = SectionAbilities(version: "0.2.0", sections: [SectionRange("virtio-net", writes: 4...6, reads: 4...6), SectionRange("cpu", writes: 3...4, reads: 2...4)])

    @Test func `the highest version both know is agreed`() {
        let same = SectionAbilities(version: "0.1.0", sections: [SectionRange("cpu", writes: 1...2, reads: 1...9)])
        #expect(SectionNegotiation(outgoing: same, incoming: new) == .agreed(SectionVersions(["cpu": 2])))
        #expect(SectionNegotiation(outgoing: SectionAbilities(version: "0.2.0", sections: [new.sections[1]]), incoming: old) == .agreed(SectionVersions(["cpu": 3])))
    }

    @Test func `a refusal names section, versions and what would help`() throws {
        guard case .refused(let refusals) = SectionNegotiation(outgoing: old, incoming: new) else { throw Unexpected() }
        #expect(
            refusals.map(\.description) == [
                """
                section virtio-net: 0.2.0 reads versions 4–6, the machine's worker (0.0.9) writes 1–3
                → go first to a version that reads one of 1–3 and writes one of 4–6
                """
            ])
    }

    @Test func `an image at hand that bridges the gap is recommended`() throws {
        let useless = SectionAbilities(version: "0.0.5", sections: [SectionRange("virtio-net", writes: 1...2, reads: 1...2)])
        let bridge = SectionAbilities(version: "0.1.3", sections: [SectionRange("virtio-net", writes: 3...4, reads: 2...4)])
        guard case .refused(let refusals) = SectionNegotiation(outgoing: old, incoming: new, intermediates: [useless, bridge]) else { throw Unexpected() }
        #expect(refusals.first?.remedy == "go to 0.1.3 first (reads 2–4, writes 3–4)")
    }

    @Test func `a section the other side does not know is refused`() throws {
        let bare = SectionAbilities(version: "0.1.0", sections: [])
        guard case .refused(let refusals) = SectionNegotiation(outgoing: old, incoming: bare) else { throw Unexpected() }
        #expect(refusals.map(\.section) == ["virtio-net", "cpu"])
        #expect(refusals.first?.reason == "0.1.0 does not know it, the machine's worker (0.0.9) writes 1–3")
    }

    @Test func `sections only the incoming side knows do not matter`() {
        #expect(SectionNegotiation(outgoing: SectionAbilities(version: "0", sections: []), incoming: new) == .agreed(SectionVersions([:])))
    }

    private struct Unexpected: Error {}
}
