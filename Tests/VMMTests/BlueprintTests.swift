import Devices
import Handover
import KVM
import Testing
import Wire

@testable import VMM

@Suite struct BlueprintTests {
    private func blueprint(vcpus: Int = 3) -> Blueprint {
        let specification = StartSpecification(
            machineID: Array(0..<16), name: "web1", vcpus: UInt32(vcpus), memory: 64 << 20, commandLine: "", affinities: [[3], [1], [2]])
        let supported = CPUIDTable([
            CPUIDEntry(function: 0, eax: 0xD), CPUIDEntry(function: 1, ebx: 0xFF00_0800, edx: 1),
            CPUIDEntry(function: 0xB, index: 0, flags: 1), CPUIDEntry(function: 0x4000_0000, eax: 0x4000_0001),
            CPUIDEntry(function: 0x4000_0001, eax: .max),
        ])
        let policy = CPUIDPolicy(supported: supported, vcpus: vcpus, tscKHz: 2_000_000)
        return Blueprint(
            specification, machineID: MachineID(low: 1, high: 2), cpuid: (0..<vcpus).map { policy.table(for: $0) },
            msrs: MSRPlan(saved: [0x174, 0x6E0], features: [.init(index: 0x10A, value: 5)]))
    }

    @Test func itIsReadAsItWasWritten() throws {
        let original = blueprint()
        #expect(try Blueprint(original.encode()) == original)
    }

    /// Of version 4: with where interrupts lead.
    private var withMessages: Blueprint {
        var blueprint = blueprint()
        blueprint.placements = [[0xC000_0000], [0xC100_0000, 0, 0x10_0000_0000]]
        blueprint.messages = [
            [], [0, 3].map { VectorMessage(vector: $0, message: PCIMessage(address: 0xFEE0_1000, data: UInt32(0x40 + $0))) },
        ]
        return blueprint
    }

    @Test func whereInterruptsLeadIsReadAsItWasWrittenAndLeftOutWhereThereIsNone() throws {
        var blueprint = withMessages
        #expect(try Blueprint(blueprint.encode()) == blueprint)
        #expect(blueprint.encode().prefix(2) == [4, 0])
        blueprint.messages = [[], []]
        #expect(blueprint.encode().prefix(2) == [3, 0])
    }

    @Test func noMoreMessagesAreWrittenThanAreRead() throws {
        var blueprint = withMessages
        let many = (0..<1500).map { VectorMessage(vector: $0, message: PCIMessage(address: 0xFEE0_1000, data: 0x40)) }
        blueprint.messages = [many, many, many]
        let read = try Blueprint(blueprint.encode())
        #expect(read.messages.map(\.count) == [1500, 548, 0])
    }

    @Test func everyTruncationIsRefused() {
        for bytes in [blueprint().encode(), withMessages.encode()] { expectTruncationsAreRefused(bytes) }
    }

    private func expectTruncationsAreRefused(_ bytes: [UInt8]) {
        for length in 0..<bytes.count { #expect(throws: WireError.self) { try Blueprint(Array(bytes.prefix(length))) } }
        #expect(throws: WireError.self) { try Blueprint(bytes + [0]) }
    }

    @Test func noDamageTraps() {
        for bytes in [blueprint().encode(), withMessages.encode()] { readDamaged(bytes) }
    }

    private func readDamaged(_ bytes: [UInt8]) {
        for position in bytes.indices {
            for bit in [UInt8(1), 0x80, 0xFF] {
                var damaged = bytes
                damaged[position] ^= bit
                _ = try? Blueprint(damaged)
            }
        }
    }

    @Test func eachVCPUHasItsOwnAPICID() {
        let tables = blueprint().cpuid
        for (index, table) in tables.enumerated() {
            #expect(table[1, 0].map { $0.ebx >> 24 } == UInt32(index))
            #expect(table[0xB, 1]?.edx == UInt32(index))
            #expect(table[0x4000_0010, 0]?.eax == 2_000_000)
        }
        #expect(tables.first?[0xB, 1]?.eax == 2)  // three vCPUs need two bits
        #expect(tables.first?[0x4000_0000, 0]?.eax == 0x4000_0010)
        #expect(tables.first?[0x4000_0001, 0].map { $0.eax & (1 << 4 | 1 << 10 | 1 << 14) } == 0)  // no asynchronous page faults
    }

    @Test(arguments: [(1, 0), (2, 1), (3, 2), (8, 3), (32, 5), (64, 6)] as [(Int, UInt32)])
    func everyVCPUIsACoreOfOneSocketThatSharesItsLastCache(vcpus: Int, bits: UInt32) {
        let supported = CPUIDTable([
            CPUIDEntry(function: 1, edx: 1 << 28), CPUIDEntry(function: 4, index: 0, flags: 1, eax: 0x1C00_4121),
            CPUIDEntry(function: 4, index: 3, flags: 1, eax: 0x1C03_C163), CPUIDEntry(function: 4, index: 4, flags: 1),
            CPUIDEntry(function: 0xB, index: 0, flags: 1, ecx: 9), CPUIDEntry(function: 0x1F, index: 0, flags: 1, ecx: 9),
            CPUIDEntry(function: 0x8000_0008, ecx: 0x5003), CPUIDEntry(function: 0x8000_001D, index: 2, flags: 1, eax: 0x4143),
            CPUIDEntry(function: 0x8000_001D, index: 3, flags: 1, eax: 0x3_C163), CPUIDEntry(function: 0x8000_001E, eax: 77, ebx: 0x0101, ecx: 0x301),
            CPUIDEntry(function: 0x8000_0026, index: 0, flags: 1, eax: 1),
        ])
        let policy = CPUIDPolicy(supported: supported, vcpus: vcpus, tscKHz: 2_000_000)
        for id in [0, UInt32(vcpus) - 1] {
            let table = policy.table(for: Int(id))
            func words(_ leaf: UInt32, _ index: UInt32) -> [UInt32] {
                guard let entry = table[leaf, index] else { return [] }
                return [entry.eax, entry.ebx, entry.ecx, entry.edx]
            }
            let count = UInt32(vcpus)
            let cores = (count - 1) << 26
            let shared: UInt32 = (1 << bits - 1) << 14
            #expect(words(1, 0).prefix(2) == [0, id << 24 | count << 16] && words(1, 0)[3] == (vcpus > 1 ? 1 << 28 : 0))
            for leaf in [0xB, 0x1F] as [UInt32] {
                #expect(words(leaf, 0) == [0, 1, 0x100, id])
                #expect(words(leaf, 1) == [bits, count, 0x201, id])
                #expect(words(leaf, 2) == [0, 0, 2, id])
            }
            #expect(words(4, 0)[0] == 0x121 | cores)
            #expect(words(4, 3)[0] == 0x163 | shared | cores)
            #expect(words(0x8000_0008, 0)[2] == bits << 12 | (count - 1))
            #expect(words(0x8000_001D, 2)[0] == 0x143)
            #expect(words(0x8000_001D, 3)[0] == 0x163 | shared)
            #expect(words(0x8000_001E, 0) == [id, id, 0, 0])
            #expect(words(0x8000_0026, 0) == [])
        }
    }

    @Test func theFingerprintIsOfWhatTheGuestSees() {
        let original = blueprint()
        let fingerprint = Fingerprint(original)
        #expect(fingerprint.bytes.count == 16)
        var renamed = original
        renamed.name = "web2"
        renamed.affinities = []
        #expect(Fingerprint(renamed) == fingerprint)
        var other = original
        other.cpuid[1].entries[0].eax ^= 1
        #expect(Fingerprint(other) != fingerprint)
        other = original
        other.memory += 4096
        #expect(Fingerprint(other) != fingerprint)
        other = original
        other.msrs.saved.removeLast()
        #expect(Fingerprint(other) != fingerprint)
    }
}
