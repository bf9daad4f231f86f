internal import CLinux
internal import Handover
internal import LinuxSystem
internal import SystemPackage

/// The descriptors lent to this worker, found by name.
struct Leases {
    private struct Lease {
        let entry: ManifestEntry
        let descriptor: SharedDescriptor
    }

    private var leases: [String: Lease] = [:]

    var count: Int { leases.count }

    /// Takes descriptors as they came with their manifest. A name lent again replaces what it named.
    mutating func add(_ entries: [ManifestEntry], _ descriptors: [SharedDescriptor]) throws(VMMError) {
        guard entries.count == descriptors.count else { throw VMMError("\(descriptors.count) descriptors came for \(entries.count) names") }
        for (entry, descriptor) in zip(entries, descriptors) { leases[entry.name] = Lease(entry: entry, descriptor: descriptor) }
    }

    /// The descriptor of a kind, in a slot.
    func find(_ kind: ResourceKind, slot: UInt32 = 0) -> SharedDescriptor? {
        leases.values.first { $0.entry.kind == kind && $0.entry.slot == slot }?.descriptor
    }

    func require(_ kind: ResourceKind) throws(VMMError) -> SharedDescriptor {
        guard let found = find(kind) else { throw VMMError("no descriptor of kind \(kind) was lent") }
        return found
    }

    /// What is behind the machine's devices.
    private var backings: LentBackings {
        var found: [ResourceKind: [UInt32: SharedDescriptor]] = [:]
        for lease in leases.values { found[lease.entry.kind, default: [:]][lease.entry.slot] = lease.descriptor }
        return LentBackings(found)
    }

    /// What a machine is built from.
    func resources() throws(VMMError) -> LentResources {
        LentResources(
            kvm: try require(.kvm), memory: try require(.guestMemory), console: find(.console),
            kernel: find(.bootFile, slot: 0), initialRAMDisk: find(.bootFile, slot: 1), backings: backings)
    }

    /// The machine's commit word.
    func commitWord() throws(VMMError) -> SharedWord {
        let descriptor = try require(.commitWord)
        let mapping = try doing("mapping the commit word") { () throws(Errno) in try SharedMapping(of: descriptor.descriptor, length: 4096) }
        return mapping.word(at: 0)
    }

    /// The memory a checkpoint is written to or read from, all of it; what a machine of `vcpus` needs of it is there already.
    func checkpoint(writable: Bool, vcpus: Int) throws(VMMError) -> SharedMapping {
        let descriptor = try require(.checkpoint)
        return try doing("mapping the checkpoint") { () throws(Errno) in
            let mapping = try SharedMapping(of: descriptor.descriptor, length: try descriptor.descriptor.size(), writable: writable)
            let touched = min(mapping.length, (1 + vcpus) << 14)
            try? mapping.advise(CInt(writable ? CL_MADV_POPULATE_WRITE : CL_MADV_POPULATE_READ), at: 0, count: touched & ~4095)
            return mapping
        }
    }
}
