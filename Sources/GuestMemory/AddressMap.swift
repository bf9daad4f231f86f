/// Where devices are in the physical address space of model `baton-1`; RAM is where ``GuestMemoryLayout`` says.
package enum AddressMap {
    /// Firmware's area below 1 MiB: RAM for KVM, where the ACPI tables are, but none that a guest may use.
    package static let firmware: Range<UInt64> = 0xE_0000..<0x10_0000
    /// 32-bit BARs.
    package static let window32: Range<UInt64> = 0xC000_0000..<0xE000_0000
    /// PCI configuration space of bus 0, memory-mapped (ECAM).
    package static let configuration: Range<UInt64> = 0xE000_0000..<0xE010_0000
    /// What configuration space would take with all 256 buses. Nothing else is ever put here.
    package static let configurationReserved: Range<UInt64> = 0xE000_0000..<0xF000_0000
    package static let ioapic: UInt64 = 0xFEC0_0000
    package static let localAPIC: UInt64 = 0xFEE0_0000

    private static let window64Size: UInt64 = 64 << 30

    /// 64-bit BARs: 64 GiB above RAM, from a multiple of 1 GiB; nil where the processor's addresses do not reach its end.
    ///
    /// - Parameter addressBits: of the guest's physical addresses (CPUID leaf 0x80000008).
    package static func window64(above layout: GuestMemoryLayout, addressBits: Int) -> Range<UInt64>? {
        let end = max(GuestMemoryLayout.highStart, layout.regions.last?.end ?? 0)
        let start = (end + (1 << 30) - 1) & ~((1 << 30) - 1)
        guard addressBits < 64, start + window64Size <= 1 << UInt64(max(0, addressBits)) else { return nil }
        return start..<start + window64Size
    }

    /// The Global System Interrupt of a legacy interrupt pin: 16 to 23, which nothing else uses.
    ///
    /// - Parameters:
    ///   - device: number on bus 0.
    ///   - pin: 0 for INTA# to 3 for INTD#.
    package static func interruptGSI(device: Int, pin: Int) -> UInt32 { 16 + UInt32((device + pin) % 8) }
}
