internal import Wire

/// A digest of what the guest sees of its machine: CPUID, MSRs, memory map, devices, PCI
/// configuration, ACPI tables. Equal before and after every handover.
///
/// It tells two machines apart by accident, not by intent: length and two CRC-32C over the canonical bytes, forwards and backwards.
package struct Fingerprint: Sendable, Equatable {
    /// 16 bytes.
    package let bytes: [UInt8]

    /// - Parameter configuration: the bytes of PCI configuration spaces that never change.
    package init(_ blueprint: Blueprint, configuration: [UInt8] = []) {
        var canonical = WireWriter(capacity: 16384)
        blueprint.encodeShape(to: &canonical)
        canonical.string(MachineModel.devices)
        canonical.blob(ACPITables(blueprint).bytes)
        canonical.blob(configuration)
        var digest = WireWriter(capacity: 16)
        digest.u64(UInt64(canonical.count))
        digest.u32(CRC32C.of(canonical.bytes))
        digest.u32(CRC32C.of(canonical.bytes.reversed()))
        bytes = digest.bytes
    }
}
