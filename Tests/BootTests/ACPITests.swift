import GuestMemory
import LinuxSystem
import Testing
import Wire

@testable import VMM

private func tables(vcpus: Int = 2, memory: Int = 512 << 20, addressBits: Int = 40) -> ACPITables {
    ACPITables(vcpus: vcpus, memory: GuestMemoryLayout(size: memory), addressBits: addressBits)
}

private func parsed(_ tables: ACPITables) throws -> [String: [UInt8]] { try ACPIReader(tables.bytes, at: 0xE_0000).tables() }

private func namespace(_ tables: ACPITables) throws -> AMLNamespace {
    try AMLNamespace(Array(try #require(try parsed(tables)["DSDT"])[36...]))
}

@Suite struct `ACPI tables` {
    @Test func `are found from the RSDP, complete and with right checksums`() throws {
        for vcpus in [1, 2, 8, 32, 64] {
            let tables = tables(vcpus: vcpus)
            #expect(Set(try parsed(tables).keys) == ["FACP", "APIC", "MCFG", "DSDT", "FACS"])
            #expect(tables.bytes.count < 0x1_0000)
        }
    }

    @Test func `the FADT tells fixed hardware, its registers and the reset register`() throws {
        let table = try #require(try parsed(tables())["FACP"])
        #expect(table.count == 276 && table[8] == 6 && table[131] == 5)
        #expect(table.integer(at: 46, 2) == 9 && table.integer(at: 48, 4) == 0, "SCI, SMI command")
        #expect(table.integer(at: 56, 4) == 0x600 && table.integer(at: 64, 4) == 0x604 && table.integer(at: 76, 4) == 0)
        #expect(Array(table[88...91]) == [4, 2, 0, 0])
        #expect(table[108] == 0x32 && table.integer(at: 109, 2) == 0x15, "century; ISA devices, no 8042, no VGA, no ASPM")
        let flags = table.integer(at: 112, 4)
        #expect(flags & 1 << 10 != 0 && flags & 1 << 20 == 0 && flags & 1 << 4 == 0 && flags & 1 << 5 != 0)
        #expect(Array(table[116..<129]) == [1, 8, 0, 1, 0xF9, 0x0C, 0, 0, 0, 0, 0, 0, 6])
        #expect(Array(table[148..<160]) == [1, 32, 0, 2, 0, 6, 0, 0, 0, 0, 0, 0])
        #expect(Array(table[172..<184]) == [1, 16, 0, 2, 4, 6, 0, 0, 0, 0, 0, 0])
        #expect(table[184..<268].allSatisfy { $0 == 0 } && table[160..<172].allSatisfy { $0 == 0 })
    }

    @Test func `the MADT has every vCPU, the IOAPIC, timer and SCI, and NMI`() throws {
        let table = try #require(try parsed(tables(vcpus: 3))["APIC"])
        #expect(table.integer(at: 36, 4) == 0xFEE0_0000 && table.integer(at: 40, 4) == 1)
        #expect(
            entries(table) == [
                [0, 8, 0, 0, 1, 0, 0, 0], [0, 8, 1, 1, 1, 0, 0, 0], [0, 8, 2, 2, 1, 0, 0, 0], [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
                [2, 10, 0, 0, 2, 0, 0, 0, 0, 0], [2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0], [4, 6, 0xFF, 0, 0, 1],
            ])
    }

    @Test func `an APIC id from 255 on is told as an x2APIC's`() throws {
        let entries = entries(try #require(try parsed(tables(vcpus: 257))["APIC"]))
        #expect(entries[254] == [0, 8, 254, 254, 1, 0, 0, 0])
        #expect(entries[255] == [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0])
        #expect(entries[256] == [9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
        #expect(entries.last?.first == 10)
    }

    private func entries(_ table: [UInt8]) -> [[UInt8]] {
        var entries: [[UInt8]] = []
        var at = 44
        while at + 1 < table.count, table[at + 1] > 1 {
            entries.append(Array(table[at..<at + Int(table[at + 1])]))
            at += Int(table[at + 1])
        }
        return entries
    }

    @Test func `the MCFG tells where configuration space is, and the memory map reserves it and the tables`() throws {
        let table = try #require(try parsed(tables())["MCFG"])
        #expect(table.count == 60 && table.integer(at: 44, 8) == 0xE000_0000 && table[52..<56].allSatisfy { $0 == 0 })
        for size in [512 << 20, 4 << 30] {
            let map = BootMemoryRange.map(of: GuestMemoryLayout(size: size))
            func isReserved(_ range: Range<UInt64>) -> Bool {
                map.contains { $0.kind == .reserved && $0.address <= range.lowerBound && $0.address + $0.length >= range.upperBound }
            }
            #expect(isReserved(AddressMap.configurationReserved) && isReserved(0xE_0000..<0x10_0000))
            #expect(map.map(\.address) == map.map(\.address).sorted())
        }
    }

    @Test func `the bridge's windows leave out the ports of configuration access and lie outside RAM`() throws {
        let small = try namespace(tables()).values["_SB_.PCI0._CRS"]
        let expected: [UInt8] =
            [0x88, 13, 0, 2, 0x0C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]  // bus 0
            + [0x47, 1, 0xF8, 0x0C, 0xF8, 0x0C, 1, 8] + [0x88, 13, 0, 1, 0x0C, 3, 0, 0, 0, 0, 0xF7, 0x0C, 0, 0, 0xF8, 0x0C]
            + [0x88, 13, 0, 1, 0x0C, 3, 0, 0, 0, 0x0D, 0xFF, 0xFF, 0, 0, 0, 0xF3]
            + [0x87, 23, 0, 0, 0x0C, 1, 0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF, 0xFF, 0xDF, 0, 0, 0, 0, 0, 0, 0, 0x20]
        let high: [UInt8] =
            [0x8A, 43, 0, 0, 0x0C, 1] + [0, 0, 0, 0, 0, 0, 0, 0] + [0, 0, 0, 0, 1, 0, 0, 0] + [0xFF, 0xFF, 0xFF, 0xFF, 0x10, 0, 0, 0]
            + [0, 0, 0, 0, 0, 0, 0, 0] + [0, 0, 0, 0, 0x10, 0, 0, 0]
        #expect(small == .buffer(expected + high + [0x79, 0]))
        let narrow = try namespace(tables(addressBits: 36)).values["_SB_.PCI0._CRS"]
        #expect(narrow == .buffer(expected + [0x79, 0]), "64 GiB above 4 GiB do not fit into 36 bits")
    }

    @Test func `the 64-bit window begins above RAM and fits the addresses`() {
        #expect(AddressMap.window64(above: GuestMemoryLayout(size: (5 << 30) + 4096), addressBits: 46) == 7 << 30..<71 << 30)
        #expect(AddressMap.window64(above: GuestMemoryLayout(size: 4 << 40), addressBits: 42) == nil)
        #expect(AddressMap.window64(above: GuestMemoryLayout(size: 1 << 30), addressBits: 37) == 4 << 30..<68 << 30)
    }

    @Test func `every pin of every slot has an interrupt from 16 to 23`() throws {
        guard case .package(let routes) = try namespace(tables()).values["_SB_.PCI0._PRT"] else { return #expect(Bool(false), "no _PRT") }
        #expect(routes.count == 31 * 4)
        for (index, route) in routes.enumerated() {
            let (device, pin) = (UInt64(index / 4 + 1), UInt64(index % 4))
            let expected: [UInt64] = [device << 16 | 0xFFFF, pin, 0, 16 + (device + pin) % 8]
            #expect(route == .package(expected.map { .integer($0) }))
        }
    }

    @Test func `the namespace has the devices, the vCPUs and S5`() throws {
        let names = try namespace(tables(vcpus: 18))
        #expect(names.devices.prefix(4) == ["_SB_.PCI0", "_SB_.MBRD", "_SB_.COM1", "_SB_.RTC0"])
        #expect(names.devices.count == 22 && names.devices.last == "_SB_.C011" && names.values["_SB_.C011._UID"] == .integer(17))
        #expect(names.values["_SB_.C000._HID"] == .text("ACPI0007") && names.values["_SB_.PCI0._HID"] == .integer(0x080A_D041))
        #expect(names.values["_S5_"] == .package([.integer(5), .integer(5), .integer(0), .integer(0)]))
        #expect(names.methods.keys.sorted() == ["_SB_.PCI0._OSC"] && names.methods["_SB_.PCI0._OSC"]?.first == 0x0C, "four arguments, serialized")
        #expect(names.values["_SB_.COM1._CRS"] == .buffer([0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0]))
        #expect(
            names.values["_SB_.MBRD._CRS"]
                == .buffer([0x86, 9, 0, 1, 0, 0, 0, 0xE0, 0, 0, 0, 0x10, 0x47, 1, 0, 6, 0, 6, 1, 6, 0x79, 0]))
    }

    @Test func `depend on the machine's shape and on nothing else`() {
        #expect(tables() == tables())
        #expect(tables(vcpus: 3) != tables() && tables(memory: 8 << 30) != tables() && tables(addressBits: 36) != tables())
    }

    /// A guest that runs was told these bytes: a worker with others cannot take it over (decision 25).
    @Test(
        arguments: [(1, 64 << 20, 40, 0xA836_86F8), (2, 512 << 20, 40, 0x5E5F_618D), (32, 8 << 30, 46, 0xC8B4_5DC4), (64, 1 << 40, 40, 0x9D3D_9202)]
            as [(Int, Int, Int, UInt32)])
    func `are the same bytes for ever`(vcpus: Int, memory: Int, addressBits: Int, digest: UInt32) {
        #expect(CRC32C.of(tables(vcpus: vcpus, memory: memory, addressBits: addressBits).bytes) == digest)
    }

    @Test func `both kinds of kernel are told where they are`() throws {
        let memory = try ram()
        let tables = tables()
        func load(_ kernel: [UInt8]) throws {
            _ = try Boot.load(
                BootFiles(kernel: BootFile("kernel", bytes: kernel), initialRAMDisk: nil, commandLine: "", tables: tables), into: memory)
        }
        try load(SampleELF().bytes)
        #expect(try memory.read(UInt64.self, at: 0x6020) == 0xE_0000)
        #expect(try memory.read(at: 0xE_0000, count: tables.bytes.count) == tables.bytes)
        try load(SampleImage.bytes)
        #expect(try memory.read(UInt64.self, at: 0x7070) == 0xE_0000)
    }
}

/// ACPICA's own tools, where they are installed.
@Suite(.enabled(if: Disassembler.isThere, "acpica-tools is not installed"))
struct `The ACPI definition block` {
    @Test(arguments: [(1, 1 << 30), (64, 5 << 30)])
    func `is disassembled and compiled again to the same bytes`(vcpus: Int, memory: Int) throws {
        let table = try #require(try parsed(tables(vcpus: vcpus, memory: memory))["DSDT"])
        let again = try Disassembler.roundTrip(table)
        let isSame = again.dropFirst(36).elementsEqual(table.dropFirst(36))  // the header names the compiler
        #expect(isSame)
    }
}
