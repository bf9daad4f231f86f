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

    @Test func everyTruncationIsRefused() {
        let bytes = blueprint().encode()
        for length in 0..<bytes.count { #expect(throws: WireError.self) { try Blueprint(Array(bytes.prefix(length))) } }
        #expect(throws: WireError.self) { try Blueprint(bytes + [0]) }
    }

    @Test func noDamageTraps() {
        let bytes = blueprint().encode()
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
