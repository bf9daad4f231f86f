internal import KVM

/// The guest-visible machine `baton-1`: what it is made of never changes; anything new for guests is a new model.
package enum MachineModel {
    package static let name = "baton-1"
    package static let maximumVCPUs = 64
    package static let maximumMemory: UInt64 = 4 << 40

    /// Ports and interrupt lines in words that belong to the fingerprint.
    static let devices =
        "pic 20-21 a0-a1 4d0-4d1; ioapic fec00000; pit 40-43 61 irq0; serial 3f8-3ff irq4; pm1 600-605 irq9; reset 64 cf9; rtc 70-71; "
        + "pci cf8 cfc-cff e0000000"

    /// ISA interrupt n is GSI n at PIC and IOAPIC, but for the timer, which is wired to the IOAPIC's pin 2; 2 is the PICs' own cascade.
    static let interruptRoutes: [InterruptRoute] =
        (UInt32(0)..<16).filter { $0 != 2 }.map { .chip(gsi: $0, $0 < 8 ? .primaryPIC : .secondaryPIC, pin: $0 % 8) }
        + (UInt32(0)..<24).filter { $0 != 2 }.map { .chip(gsi: $0, .ioapic, pin: $0 == 0 ? 2 : $0) }

    /// Pages in the hole below 4 GiB that KVM needs on Intel processors; never shown to a guest as RAM.
    static let taskStatePages: UInt64 = 0xFFFB_D000
    static let identityMapPage: UInt64 = 0xFFFB_C000
}
