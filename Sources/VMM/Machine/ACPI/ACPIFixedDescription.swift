internal import Wire

extension ACPITables {
    /// FADT flags (ACPI 6.5, table 5.10): WBINVD works; C1 (HLT) on every processor; the sleep button is no fixed event, the power button
    /// is; the clock wakes nobody; there is a reset register.
    private static let flags: UInt32 = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10
    /// IAPC_BOOT_ARCH (table 5.11): devices on the ISA bus; no keyboard controller (bit 1); no VGA; no ASPM.
    private static let bootArchitecture: UInt16 = 1 << 0 | 1 << 2 | 1 << 4
    private static let eventBlock: UInt16 = 0x600
    private static let controlBlock: UInt16 = 0x604
    private static let resetRegister: UInt16 = 0xCF9
    private static let resetValue: UInt8 = 6
    private static let centuryRegister: UInt8 = 0x32

    /// Fixed ACPI Description Table, revision 6.5: the fixed hardware of PM1 registers, without a PM timer and general-purpose events.
    static func fixedDescription(facs: UInt64, dsdt: UInt64) -> ACPITable {
        var writer = WireWriter(capacity: 240)
        writer.u32(UInt32(facs))
        writer.u32(UInt32(dsdt))
        writer.u8(0)
        writer.u8(4)  // preferred power profile: enterprise server
        writer.u16(systemControlInterrupt)
        writer.u32(0)  // no SMI command port: it is in ACPI mode, always
        writer.zeros(4)
        for port in [eventBlock, 0, controlBlock, 0, 0, 0, 0, 0] { writer.u32(UInt32(port)) }  // PM1 events, PM1 control, PM2, timer, GPE
        writer.raw([4, 2, 0, 0, 0, 0, 0, 0])  // their lengths
        writer.u16(101)  // no C2
        writer.u16(1001)  // no C3
        writer.zeros(8)  // flush size and stride, duty cycle, alarm registers
        writer.u8(centuryRegister)
        writer.u16(bootArchitecture)
        writer.u8(0)
        writer.u32(flags)
        writer.address(port: resetRegister, bits: 8, access: 1)
        writer.u8(resetValue)
        writer.u16(0)
        writer.u8(5)  // the minor version
        writer.u64(0)  // the FACS is told above
        writer.u64(dsdt)
        writer.address(port: eventBlock, bits: 32, access: 2)
        writer.address()
        writer.address(port: controlBlock, bits: 16, access: 2)
        for _ in 0..<7 { writer.address() }  // PM1b control, PM2, timer, two GPE blocks, sleep control and status
        writer.raw(Array("Baton".utf8) + [0, 0, 0])  // hypervisor
        return ACPITable("FACP", revision: 6, writer.bytes)
    }
}
