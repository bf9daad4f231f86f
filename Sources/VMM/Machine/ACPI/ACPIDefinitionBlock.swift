internal import GuestMemory

/// The DSDT's AML: the PCI host bridge, what is on no bus that could be asked, the processors, and how to switch the machine off.
enum ACPIDefinitionBlock {
    /// SLP_TYP of the soft-off state, as `\_S5` tells it and the power device takes it.
    static let softOff: UInt64 = 5

    static func terms(vcpus: Int, window64: Range<UInt64>?) -> AML.Term {
        let devices = [hostBridge(window64), motherboard, serialPort, clock] + (0..<vcpus).map(processor)
        return AML.scope("_SB", devices)
            + AML.define("_S5", AML.package([AML.integer(softOff), AML.integer(softOff), AML.integer(0), AML.integer(0)]))
    }

    /// A PCI Express host bridge with bus 0 and nothing behind it.
    private static func hostBridge(_ window64: Range<UInt64>?) -> AML.Term {
        // Not 0xCF8 to 0xCFF: those ports are the bridge's own.
        var resources: [ACPIResource] = [
            .buses(0...0), .ports(0xCF8, count: 8), .portWindow(0...0xCF7), .portWindow(0xD00...0xFFFF), .memoryWindow32(AddressMap.window32),
        ]
        if let window64 { resources.append(.memoryWindow64(window64)) }
        return AML.device(
            "PCI0",
            [
                AML.define("_HID", AML.eisaID("PNP0A08")), AML.define("_CID", AML.eisaID("PNP0A03")), AML.define("_UID", AML.integer(0)),
                AML.define("_SEG", AML.integer(0)), AML.define("_BBN", AML.integer(0)),
                AML.define("_CRS", ACPIResource.template(resources)), AML.define("_PRT", interruptRouting), capabilities,
            ])
    }

    /// Which interrupt each pin of each slot has: always the same, and for nobody to configure.
    private static let interruptRouting = AML.package(
        (1...31).flatMap { device in
            (0..<4).map { pin in
                AML.package([
                    AML.integer(UInt64(device) << 16 | 0xFFFF), AML.integer(UInt64(pin)), AML.integer(0),
                    AML.integer(UInt64(AddressMap.interruptGSI(device: device, pin: pin))),
                ])
            }
        })

    /// `_OSC` (PCI Firmware Specification 3.3, section 4.5.1): the guest may have PCI Express' capability structures, and nothing of
    /// hot plug, power management events and error reporting, which this bridge has not.
    private static let capabilities = AML.method(
        "_OSC", arguments: 4,
        [
            AML.doubleWordField("CDW1", of: AML.argument(3), at: 0),
            AML.when(
                AML.equal(AML.argument(0), AML.uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")),
                [
                    AML.doubleWordField("CDW3", of: AML.argument(3), at: 8),
                    AML.and(AML.name("CDW3"), AML.integer(0x10), in: AML.local(0)),
                    AML.when(
                        AML.not(AML.equal(AML.local(0), AML.name("CDW3"))),
                        [AML.or(AML.name("CDW1"), AML.integer(0x10), in: AML.name("CDW1"))]),  // capabilities were masked
                    AML.store(AML.local(0), in: AML.name("CDW3")),
                ]),
            AML.otherwise([AML.or(AML.name("CDW1"), AML.integer(0x04), in: AML.name("CDW1"))]),  // no such UUID
            AML.giveBack(AML.argument(3)),
        ])

    /// What no device below may be given: configuration space and the power registers.
    private static let motherboard = AML.device(
        "MBRD",
        [
            AML.define("_HID", AML.eisaID("PNP0C02")), AML.define("_UID", AML.integer(0)),
            AML.define("_CRS", ACPIResource.template([.memory32(AddressMap.configurationReserved), .ports(0x600, count: 6)])),
        ])

    private static let serialPort = AML.device(
        "COM1",
        [
            AML.define("_HID", AML.eisaID("PNP0501")), AML.define("_UID", AML.integer(1)),
            AML.define("_CRS", ACPIResource.template([.ports(0x3F8, count: 8), .interrupt(4)])),
        ])

    /// It makes no interrupts.
    private static let clock = AML.device(
        "RTC0", [AML.define("_HID", AML.eisaID("PNP0B00")), AML.define("_CRS", ACPIResource.template([.ports(0x70, count: 2)]))])

    /// The processor whose MADT entry has the same `_UID`.
    private static func processor(_ index: Int) -> AML.Term {
        let digits = String(index, radix: 16, uppercase: true)
        let name = "C" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        return AML.device(name, [AML.define("_HID", AML.string("ACPI0007")), AML.define("_UID", AML.integer(UInt64(index)))])
    }
}
