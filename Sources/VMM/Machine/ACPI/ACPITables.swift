internal import GuestMemory
internal import KVM
internal import Wire

/// What ACPI tells the guest of the machine (ACPI 6.5, chapter 5): tables that lie in firmware's area below 1 MiB, which the memory map
/// reserves. They follow from the blueprint alone and are written into RAM when the machine is powered on, never afterwards.
struct ACPITables: Sendable, Equatable {
    /// Where the bytes go, and the RSDP with which they begin.
    static let address = AddressMap.firmware.lowerBound

    let bytes: [UInt8]

    /// Tables begin at multiples of this; the FACS has to.
    private static let alignment = 64

    init(_ blueprint: Blueprint) {
        self.init(
            vcpus: blueprint.vcpus, memory: GuestMemoryLayout(size: blueprint.memory), addressBits: Self.addressBits(blueprint))
    }

    private static func addressBits(_ blueprint: Blueprint) -> Int {
        Int(blueprint.cpuid.first?[0x8000_0008, 0].map { $0.eax & 0xFF } ?? 36)
    }

    /// Where 64-bit BARs are, as the tables say.
    static func window64(_ blueprint: Blueprint) -> Range<UInt64>? {
        AddressMap.window64(above: GuestMemoryLayout(size: blueprint.memory), addressBits: addressBits(blueprint))
    }

    /// - Parameter addressBits: of a physical address.
    init(vcpus: Int, memory: GuestMemoryLayout, addressBits: Int) {
        var area = Area(start: Self.address, alignment: Self.alignment)
        area.reserve(36)  // the RSDP
        let window64 = AddressMap.window64(above: memory, addressBits: addressBits)
        let facs = area.place(Self.firmwareControl())
        let dsdt = area.place(ACPITable("DSDT", revision: 2, ACPIDefinitionBlock.terms(vcpus: vcpus, window64: window64)).bytes)
        let others = [Self.fixedDescription(facs: facs, dsdt: dsdt), Self.processors(vcpus), Self.configurationSpace()].map { area.place($0.bytes) }
        let xsdt = area.place(ACPITable("XSDT", revision: 1, others.flatMap { AML.littleEndian($0, bytes: 8) }).bytes)
        area.fill(Self.rootPointer(xsdt))
        precondition(area.end <= AddressMap.firmware.upperBound, "the tables of \(vcpus) vCPUs do not fit below 1 MiB")
        bytes = area.bytes
    }

    /// Root System Description Pointer, revision 2.
    private static func rootPointer(_ xsdt: UInt64) -> [UInt8] {
        var writer = WireWriter(capacity: 36)
        writer.raw(Array("RSD PTR ".utf8))
        writer.u8(0)  // checksum of the first 20 bytes
        writer.raw(ACPITable.manufacturer)
        writer.u8(2)
        writer.u32(0)  // no RSDT
        writer.u32(36)
        writer.u64(xsdt)
        writer.u8(0)  // checksum of all
        writer.zeros(3)
        var bytes = writer.bytes
        bytes[8] = ACPITable.checksum(bytes[..<20])
        bytes[32] = ACPITable.checksum(bytes)
        return bytes
    }

    /// Firmware ACPI Control Structure: the guest's own, but for its first fields.
    private static func firmwareControl() -> [UInt8] {
        var writer = WireWriter(capacity: 64)
        writer.raw(Array("FACS".utf8))
        writer.u32(64)
        writer.zeros(24)  // hardware signature, waking vector, global lock, flags, 64-bit waking vector
        writer.u8(2)
        writer.zeros(31)
        return writer.bytes
    }

    /// Multiple APIC Description Table: every vCPU, the IOAPIC, and how ISA interrupts reach it.
    private static func processors(_ vcpus: Int) -> ACPITable {
        var writer = WireWriter(capacity: 64 + 16 * vcpus)
        writer.u32(UInt32(AddressMap.localAPIC))
        writer.u32(1)  // there are 8259s too
        for id in 0..<UInt32(vcpus) { processor(id, to: &writer) }
        writer.raw([1, 12, 0, 0])  // IOAPIC 0
        writer.u32(UInt32(AddressMap.ioapic))
        writer.u32(0)  // its pins begin at GSI 0
        override(interrupt: 0, gsi: 2, flags: 0, to: &writer)  // the timer
        override(interrupt: UInt8(systemControlInterrupt), gsi: UInt32(systemControlInterrupt), flags: 0x0D, to: &writer)  // level, high
        writer.raw([4, 6, 0xFF, 0, 0, 1])  // NMI is LINT1 of every local APIC
        if vcpus > 255 { writer.raw([0x0A, 12, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]) }
        return ACPITable("APIC", revision: 5, writer.bytes)
    }

    /// Local APIC, or local x2APIC from number 255 on; enabled. Its `_UID` is its APIC id.
    private static func processor(_ id: UInt32, to writer: inout WireWriter) {
        guard id >= 255 else { return writer.raw([0, 8, UInt8(id), UInt8(id), 1, 0, 0, 0]) }
        writer.raw([9, 16, 0, 0])
        writer.u32(id)
        writer.u32(1)
        writer.u32(id)
    }

    /// Interrupt Source Override.
    private static func override(interrupt: UInt8, gsi: UInt32, flags: UInt16, to writer: inout WireWriter) {
        writer.raw([2, 10, 0, interrupt])
        writer.u32(gsi)
        writer.u16(flags)
    }

    /// MCFG (PCI Firmware Specification 3.3, section 4.1.2): segment 0, bus 0.
    private static func configurationSpace() -> ACPITable {
        var writer = WireWriter(capacity: 24)
        writer.zeros(8)
        writer.u64(AddressMap.configuration.lowerBound)
        writer.u16(0)  // segment
        writer.raw([0, 0])  // first and last bus
        writer.zeros(4)
        return ACPITable("MCFG", revision: 1, writer.bytes)
    }

    /// SCI_INT: the GSI at which the power device interrupts.
    static let systemControlInterrupt: UInt16 = 9
}

/// Tables one after another in guest memory, and their bytes.
private struct Area {
    private let start: UInt64
    private let alignment: Int
    private(set) var bytes: [UInt8] = []

    init(start: UInt64, alignment: Int) {
        self.start = start
        self.alignment = alignment
    }

    var end: UInt64 { start + UInt64(bytes.count) }

    /// Leaves room at the front.
    mutating func reserve(_ count: Int) { bytes = [UInt8](repeating: 0, count: count) }

    /// Puts a table behind the others; its address.
    mutating func place(_ table: [UInt8]) -> UInt64 {
        bytes += [UInt8](repeating: 0, count: (alignment - bytes.count % alignment) % alignment)
        let address = end
        bytes += table
        return address
    }

    /// Fills the room at the front.
    mutating func fill(_ front: [UInt8]) { bytes.replaceSubrange(0..<front.count, with: front) }
}
