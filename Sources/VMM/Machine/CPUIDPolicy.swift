package import KVM

/// What CPUID shows a guest of model `baton-1`: what the host's KVM supports, less what cannot be carried from one worker to the
/// next, with a flat topology of one thread per core and one socket, and the frequencies.
package struct CPUIDPolicy: Sendable {
    private let supported: CPUIDTable
    private let vcpus: Int
    private let tscKHz: UInt32

    /// Where KVM's paravirtual leaves begin.
    private static let hypervisorBase: UInt32 = 0x4000_0000
    private static let featureLeaf: UInt32 = 0x4000_0001
    /// TSC and APIC bus frequency in kHz, as Linux and others read them (the leaf is VMware's).
    private static let frequencyLeaf: UInt32 = 0x4000_0010
    private static let busKHz: UInt32 = 1_000_000
    /// KVM_FEATURE_ASYNC_PF, _ASYNC_PF_VMEXIT and _ASYNC_PF_INT: tokens in flight are known to the old VM only.
    private static let notCarried: UInt32 = 1 << 4 | 1 << 10 | 1 << 14

    /// - Parameter tscKHz: as a new vCPU reports it.
    package init(supported: CPUIDTable, vcpus: Int, tscKHz: UInt32) {
        self.supported = supported
        self.vcpus = vcpus
        self.tscKHz = tscKHz
    }

    /// The table of the vCPU with this APIC id.
    package func table(for index: Int) -> CPUIDTable {
        var table = supported
        let id = UInt32(index)
        table.update(1) {
            $0.ebx = $0.ebx & 0x0000_FFFF | id << 24 | UInt32(min(vcpus, 255)) << 16
            $0.ecx |= 1 << 31 | 1 << 24  // there is a hypervisor; the LAPIC timer has TSC-deadline mode
            $0.edx = vcpus > 1 ? $0.edx | 1 << 28 : $0.edx & ~(1 << 28)
        }
        setTopology(&table, id)
        table.update(Self.hypervisorBase) { $0.eax = max($0.eax, Self.frequencyLeaf) }
        table.update(Self.featureLeaf) { $0.eax &= ~Self.notCarried }
        table.replace(CPUIDEntry(function: Self.frequencyLeaf, eax: tscKHz, ebx: Self.busKHz))
        return table
    }

    private func setTopology(_ table: inout CPUIDTable, _ id: UInt32) {
        let shift = UInt32(Int.bitWidth - (vcpus - 1).leadingZeroBitCount)
        for leaf: UInt32 in [0x0B, 0x1F] where table[leaf, 0] != nil {
            table.entries.removeAll { $0.function == leaf }
            table.entries.append(CPUIDEntry(function: leaf, index: 0, flags: 1, eax: 0, ebx: 1, ecx: 1 << 8, edx: id))
            table.entries.append(CPUIDEntry(function: leaf, index: 1, flags: 1, eax: shift, ebx: UInt32(vcpus), ecx: 2 << 8 | 1, edx: id))
            table.entries.append(CPUIDEntry(function: leaf, index: 2, flags: 1, ecx: 2, edx: id))
        }
        // Intel: cores in the package and threads that share a cache. AMD: core count, and who a thread's neighbours are.
        table.update(4) { $0.eax = Self.cache($0.eax, sharing: shift) | UInt32(min(vcpus, 64) - 1) << 26 }
        table.update(0x8000_001D) { $0.eax = Self.cache($0.eax, sharing: shift) }
        // The host's own topology in other words: leaves 0x0B and 0x8000001E say it here.
        table.entries.removeAll { $0.function == 0x8000_0026 }
        table.update(0x8000_0008) { $0.ecx = $0.ecx & ~0xF0FF | shift << 12 | UInt32(min(vcpus, 256) - 1) }
        table.update(0x8000_001E) {
            $0.eax = id
            $0.ebx = id & 0xFF
            $0.ecx = 0
        }
    }

    /// EAX of a cache's description: who shares it. The last level (3) belongs to all vCPUs, the others to one each.
    private static func cache(_ eax: UInt32, sharing shift: UInt32) -> UInt32 {
        let isShared = eax & 0x1F != 0 && eax >> 5 & 7 == 3
        return eax & 0x3FFF | (isShared ? (1 << shift - 1) & 0xFFF : 0) << 14
    }
}
