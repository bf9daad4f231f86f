import Handover
import Testing
import Wire

@Suite struct MessageTests {
    static let orders: [Order] = [
        .lend(
            entries: [ManifestEntry(name: "ram", kind: .guestMemory), ManifestEntry(name: "kernel", kind: .bootFile, slot: 1, writable: false)],
            total: 7),
        .start(
            StartSpecification(
                machineID: Array(0..<16), name: "web1", vcpus: 4, memory: 1 << 33, commandLine: "console=ttyS0", pageSize: 2 << 20, prefault: true,
                affinities: [[1], [2, 3]], devices: DeviceSpecificationTests.everyKind)),
        .exportBlueprint(versions: [SectionVersion(name: "cpu", version: 3)]), .prepare(blueprint: [1, 2, 3]), .settle(holdNanoseconds: 7),
        .save(freezeNanoseconds: 50_000_000), .load(length: 17406, digest: 0xDEAD_BEEF), .grant, .resume, .takeAddresses, .pause, .unpause, .health,
        .locate, .requestPowerOff, .fingerprint, .retire, .takeOver(patienceNanoseconds: 300_000_000),
        .practise(cpu: 63),
    ]

    static let reports: [Report] = [
        .hello(
            WorkerIdentity(version: "1.2.3", pid: 4711, models: ["baton-1"], sections: [SectionRange(name: "cpu", writes: 1...3, reads: 2...3)])),
        .lent(held: 5), .blueprint([9, 8]), .prepared(populated: 1 << 30),
        .practised(cpu: 3), .settled(began: 1, drained: 2),
        .saved(length: 17406, digest: 1, parkBegan: -1, parked: 2, saved: 3), .loaded(began: 4, loaded: 5), .running(granted: 6, firstRun: 7),
        .tookOver(began: 8, loaded: 9, committed: 10, firstRun: 11),
        .resumed(overdue: true), .done, .health(alive: 3, vcpus: 4, problem: "vCPU 3 does not answer"), .location(.frozen), .fingerprint([1, 2]),
        .refused(reason: "not now"), .poweredOff, .resetRequested, .failed(reason: "KVM_RUN failed"),
    ]

    private func encoded<Body: MessageBody>(_ body: Body) -> [UInt8] {
        var writer = WireWriter()
        Message(body, generation: 7, sequence: 42).encode(to: &writer)
        return writer.bytes
    }

    @Test(arguments: orders) func anOrderReadsBackAsItWasWritten(order: Order) throws {
        let message = try Message<Order>(encoded(order))
        #expect(message.body == order)
        #expect(message.envelope.generation == 7 && message.envelope.sequence == 42)
    }

    @Test(arguments: reports) func aReportReadsBackAsItWasWritten(report: Report) throws {
        #expect(try Message<Report>(encoded(report)).body == report)
    }

    @Test func everyKindHasANumberOfItsOwn() {
        let numbers = Self.orders.map(\.kind) + Self.reports.map(\.kind)
        #expect(Set(numbers).count == numbers.count)
    }

    @Test(arguments: orders) func everyTruncationIsRefused(order: Order) {
        let whole = encoded(order)
        for length in 0..<whole.count {
            #expect(throws: WireError.self) { try Message<Order>(Array(whole[..<length])) }
        }
        #expect(throws: WireError.self) { try Message<Order>(whole + [0]) }
    }

    @Test(arguments: reports) func noFlippedBitMakesAReportTrap(report: Report) {
        let whole = encoded(report)
        for index in whole.indices {
            for bit in 0..<8 {
                var bytes = whole
                bytes[index] ^= 1 << UInt8(bit)
                _ = try? Message<Report>(bytes)  // refused or another report: never a trap
            }
        }
    }

    @Test func aCountBeyondTheMessageAllocatesNothing() {
        var writer = WireWriter()
        Envelope(kind: 3, generation: 1, sequence: 1).encode(to: &writer)
        writer.u32(.max)
        #expect(throws: WireError.self) { try Message<Order>(writer.bytes) }
    }

    @Test func anOrderIsNoReport() {
        #expect(throws: WireError.self) { try Message<Report>(encoded(Order.grant)) }
    }

    @Test func anotherProtocolVersionIsRefused() {
        var bytes = encoded(Order.grant)
        bytes[4] = 2
        #expect(throws: WireError.self) { try Message<Order>(bytes) }
    }
}

@Suite struct SectionAgreementTests {
    private func agreement(_ outgoing: SectionRange, _ incoming: [SectionRange]) -> SectionAgreement {
        SectionAgreement(outgoing: [outgoing], incoming: incoming, outgoingVersion: "1.0", incomingVersion: "2.0")
    }

    @Test func theNewestVersionBothKnowIsWritten() {
        let result = agreement(SectionRange(name: "serial", writes: 1...3, reads: 1...3), [SectionRange(name: "serial", writes: 2...5, reads: 2...5)])
        #expect(result.versions == [SectionVersion(name: "serial", version: 3)])
        #expect(result.refusals.isEmpty)
    }

    @Test func rangesThatDoNotMeetAreRefusedWithBoth() {
        let result = agreement(
            SectionRange(name: "virtio-net", writes: 1...3, reads: 1...3), [SectionRange(name: "virtio-net", writes: 4...6, reads: 4...6)])
        #expect(
            result.refusals == [
                "section virtio-net: 2.0 reads versions 4–6, 1.0 writes versions 1–3",
                "→ go first to an image that reads one of 1–3 and writes one of 4–6",
            ])
    }

    @Test func aSectionTheReaderDoesNotKnowIsRefused() {
        let result = agreement(SectionRange(name: "nvram", writes: 1...1, reads: 1...1), [])
        #expect(result.refusals == ["section nvram: 2.0 does not know it, 1.0 writes version 1", "→ choose an image that reads nvram"])
    }

    @Test func whatOnlyTheReaderKnowsIsNoMatter() {
        let serial = SectionRange(name: "serial", writes: 1...1, reads: 1...1)
        #expect(agreement(serial, [serial, SectionRange(name: "tpm", writes: 1...1, reads: 1...1)]).refusals.isEmpty)
    }
}
