import GuestMemory
import Testing

@testable import VMM

@Suite struct `Starting a PVH kernel` {
    @Test func `segments, start info, command line and modules are where the protocol says`() throws {
        let memory = try ram()
        let registers = try boot(SampleELF().bytes, initrd: [9, 8, 7], into: memory)
        #expect(registers.rip == 0x10_0008 && registers.rbx == 0x6000 && registers.cr0 & 0x8000_0001 == 1 && registers.efer == 0)
        #expect(registers.rflags & 0x2_0200 == 0 && !registers.code.isLong && registers.code.isBig && registers.task.limit == 0x67)
        #expect(try memory.read(at: 0x10_0000, count: 0x40) == SampleELF.content)
        #expect(try memory.read(UInt32.self, at: 0x6000) == 0x336E_C578)
        #expect(try memory.read(UInt32.self, at: 0x600C) == 1)
        let line: UInt64 = try memory.read(at: 0x6018)
        #expect(try memory.read(at: line, count: 6) == Array("quiet\0".utf8))
        let modules: UInt64 = try memory.read(at: 0x6010)
        let disk: UInt64 = try memory.read(at: modules)
        #expect(disk == (64 << 20) - 0x1000)
        #expect(try memory.read(UInt64.self, at: modules + 8) == 3)
        #expect(try memory.read(at: disk, count: 3) == [9, 8, 7])
    }

    @Test func `the memory map leaves out the hole below one megabyte`() throws {
        let memory = try ram()
        _ = try boot(SampleELF().bytes, into: memory)
        let map: UInt64 = try memory.read(at: 0x6028)
        #expect(try memory.read(UInt32.self, at: 0x6030) == 4)
        let entries = try (0..<4).map { index in
            [
                try memory.read(UInt64.self, at: map + 24 * index), try memory.read(at: map + 24 * index + 8),
                try memory.read(at: map + 24 * index + 16),
            ]
        }
        #expect(entries == [[0, 0xA_0000, 1], [0xA_0000, 0x6_0000, 2], [0x10_0000, 63 << 20, 1], [0xE000_0000, 256 << 20, 2]])
    }

    @Test func `memory over three gigabytes is in the map from four`() {
        let map = BootMemoryRange.map(of: GuestMemoryLayout(size: 5 << 30))
        #expect(map.last == BootMemoryRange(address: 4 << 30, length: 2 << 30, kind: .memory))
        #expect(map.reduce(0) { $0 + ($1.kind == .memory ? $1.length : 0) } == (5 << 30) - 0x6_0000)
    }

    @Test func `nothing but the kernel is written between 0x10000 and the initial RAM disk`() throws {
        let memory = try ram()
        _ = try boot(SampleELF().bytes, commandLine: String(repeating: "x", count: 4095), into: memory)
        #expect(try memory.read(at: 0x1_0000, count: 0xF_0000).allSatisfy { $0 == 0 })
        #expect(try memory.read(at: 0x10_0040, count: 0x1000).allSatisfy { $0 == 0 })
    }

    @Test func `a kernel without initial RAM disk gets no module list`() throws {
        let memory = try ram()
        _ = try boot(SampleELF().bytes, into: memory)
        #expect(try memory.read(UInt64.self, at: 0x6010) == 0)
        #expect(try memory.read(UInt32.self, at: 0x600C) == 0)
    }
}

@Suite struct `Refusing a PVH kernel` {
    private func refusal(of kernel: [UInt8], commandLine: String = "", memory: Int = 64 << 20) -> BootError? {
        do {
            _ = try boot(kernel, commandLine: commandLine, into: ram(memory))
            return nil
        } catch { return error as? BootError }
    }

    @Test(
        arguments: [
            (4, 1, "EI_CLASS"), (5, 2, "EI_DATA"), (16, 1, "e_type"), (18, 3, "e_machine"), (54, 32, "e_phentsize"), (56, 0, "e_phnum"),
            (57, 1, "e_phnum"),
        ] as [(Int, UInt8, String)])
    func `a wrong header field is named`(offset: Int, value: UInt8, field: String) {
        var kernel = SampleELF().bytes
        kernel[offset] = value
        guard case .field(let name, _, _) = refusal(of: kernel) else { return #expect(Bool(false), "not refused for a field") }
        #expect(name == field)
    }

    @Test func `segments outside RAM, in the hole, on the start info or on each other are named`() {
        for (address, reason) in [
            (0x8000, "lies on what the machine starts with (below 0x10000)"), (0xA_0000, "does not lie in RAM"), (0x9_F000, "does not lie in RAM"),
            (64 << 20, "does not lie in RAM"), (UInt64.max - 0x1000, "does not lie in RAM"), (3 << 30, "does not lie in RAM"),
            (0x10_1000, "lies on something loaded at 0x100000"),
        ] as [(UInt64, String)] {
            var sample = SampleELF()
            sample.segments.append((address, 0x200, 0x40, 0x2000))
            #expect(refusal(of: sample.bytes) == .placement(of: "segment 1", address: address, length: 0x2000, reason: reason))
        }
    }

    @Test func `sizes that cannot be are named`() {
        var sample = SampleELF()
        sample.segments[0].memorySize = 0x3F
        #expect(refusal(of: sample.bytes) == .field("p_filesz of segment 0", value: 0x40, reason: "it is more than p_memsz"))
        sample.segments[0].memorySize = .max
        guard case .placement = refusal(of: sample.bytes) else { return #expect(Bool(false), "not refused for its place") }
        sample.segments[0] = (0x10_0000, .max - 8, 0x40, 0x40)
        guard case .truncated("segment 0", _, _, _) = refusal(of: sample.bytes) else { return #expect(Bool(false), "not truncated") }
    }

    @Test func `a missing, misplaced or malformed entry note is named`() {
        var sample = SampleELF()
        sample.note = SampleELF.note(entry: 0x10_0008, name: "GNU\0")
        #expect(refusal(of: sample.bytes) == .missing("the PVH entry point (Xen note 18)"))
        sample.note = SampleELF.note(entry: 0x10_0008, kind: 17)
        #expect(refusal(of: sample.bytes) == .missing("the PVH entry point (Xen note 18)"))
        sample.note = SampleELF.note(entry: 0x10_0040)
        #expect(refusal(of: sample.bytes) == .field("the PVH entry point", value: 0x10_0040, reason: "it lies in no loaded segment"))
        sample.note[0] = 0xFF
        guard case .truncated("a note", _, _, _) = refusal(of: sample.bytes) else { return #expect(Bool(false), "not truncated") }
        sample.noteLength = 1 << 40
        #expect(refusal(of: sample.bytes) == .field("p_filesz of note segment 1", value: 1 << 40, reason: "over 64 KiB"))
    }

    @Test func `every truncation of a kernel is refused`() {
        let kernel = SampleELF().bytes
        for length in 0..<kernel.count { #expect(refusal(of: Array(kernel[..<length])) != nil, "\(length) bytes") }
    }

    @Test func `any flipped bit of the headers ends in registers or an error`() throws {
        let kernel = SampleELF().bytes
        let memory = try ram(2 << 20)
        for bit in 0..<8 * 0x1A0 {
            var damaged = kernel
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            _ = try? boot(damaged, into: memory)
        }
    }

    @Test func `a command line too long or with a NUL is refused`() {
        #expect(refusal(of: SampleELF().bytes, commandLine: String(repeating: "x", count: 4096)) == .commandLineTooLong(length: 4096, limit: 4095))
        #expect(refusal(of: SampleELF().bytes, commandLine: "a\0b") == .commandLineNotText)
    }

    @Test func `an initial RAM disk without room is refused`() throws {
        let memory = try ram(4 << 20)
        #expect(throws: BootError.self) { try boot(SampleELF().bytes, initrd: [UInt8](repeating: 1, count: 3 << 20), into: memory) }
        #expect(throws: BootError.self) { try boot(SampleELF().bytes, initrd: [UInt8](repeating: 1, count: 5 << 20), into: memory) }
    }

    @Test func `what is no kernel is refused`() {
        #expect(refusal(of: [UInt8](repeating: 0x55, count: 4096)) == .unknownFormat)
        #expect(refusal(of: []) != nil)
    }
}

@Suite struct `Starting a bzImage` {
    @Test func `kernel, zero page, page tables and descriptors are where the protocol says`() throws {
        let memory = try ram()
        let registers = try boot(SampleImage.bytes, initrd: [5, 6], commandLine: "ro", into: memory)
        #expect(registers.rip == 0x100_0200 && registers.rsi == 0x7000 && registers.cr3 == 0x9000 && registers.efer == 0x500)
        #expect(registers.code.isLong && !registers.code.isBig && registers.code.selector == 0x10 && registers.data.selector == 0x18)
        #expect(try memory.read(at: 0x100_0000, count: 4) == [0xC3, 0xC3, 0xC3, 0xC3])
        #expect(try memory.read(at: 0x71F1, count: 0x1F) == Array(SampleImage.bytes[0x1F1..<0x210]))
        #expect(try memory.read(at: 0x726C, count: 0x24).allSatisfy { $0 == 0 })
        #expect(try memory.read(UInt8.self, at: 0x7210) == 0xFF)
        #expect(try memory.read(UInt32.self, at: 0x7228) == 0x8000)
        #expect(try memory.read(at: 0x8000, count: 3) == Array("ro\0".utf8))
        #expect(try memory.read(UInt8.self, at: 0x71E8) == 4)
        let disk = UInt64(try memory.read(UInt32.self, at: 0x7218))
        #expect(try memory.read(at: disk, count: 2) == [5, 6])
        #expect(try memory.read(UInt32.self, at: 0x721C) == 2)
    }

    @Test(arguments: [0, 0x100_0200, 0xFFE0_0000, 0xFFFF_FFFF] as [UInt64])
    func `the page tables map the first four gigabytes to themselves`(address: UInt64) throws {
        let memory = try ram()
        let registers = try boot(SampleImage.bytes, into: memory)
        var table = registers.cr3
        for shift in [39, 30] as [UInt64] {
            let entry: UInt64 = try memory.read(at: table + ((address >> shift) & 511) * 8)
            #expect(entry & 3 == 3)
            table = entry & ~0xFFF
        }
        let page: UInt64 = try memory.read(at: table + ((address >> 21) & 511) * 8)
        #expect(page & 0x83 == 0x83)
        #expect(page & ~0x1F_FFFF == address & ~0x1F_FFFF)
    }

    @Test func `the initial RAM disk stays below the kernel's limit`() throws {
        var image = SampleImage.bytes
        for (index, byte) in ([0xFF, 0xFF, 0xFF, 0x01] as [UInt8]).enumerated() { image[0x22C + index] = byte }  // 32 MiB
        let memory = try ram()
        _ = try boot(image, initrd: [UInt8](repeating: 3, count: 0x1800), into: memory)
        #expect(try memory.read(UInt32.self, at: 0x7218) == (32 << 20) - 0x2000)
    }

    @Test(
        arguments: [
            (0x1FE, 0, "boot_flag"), (0x206, 0x0B, "the boot protocol's version"), (0x211, 0, "loadflags"), (0x236, 2, "xloadflags"),
            (0x201, 0x8F, "the setup header's length"), (0x258, 1, "pref_address"), (0x25B, 0xFF, ""), (0x25D, 1, "pref_address"),
            (0x230, 3, "pref_address"),
        ] as [(Int, UInt8, String)])
    func `a wrong header field is named`(offset: Int, value: UInt8, field: String) throws {
        var image = SampleImage.bytes
        image[offset] = value
        do {
            _ = try boot(image, into: ram())
            Issue.record("accepted")
        } catch BootError.field(let name, _, _) {
            #expect(name == field)
        } catch BootError.placement {
            #expect(field == "")
        }
    }

    @Test func `the kernel's own command line limit holds`() throws {
        let memory = try ram()
        #expect(throws: BootError.commandLineTooLong(length: 2048, limit: 2047)) {
            try boot(SampleImage.bytes, commandLine: String(repeating: "x", count: 2048), into: memory)
        }
    }

    @Test func `work space that does not fit is refused`() throws {
        let memory = try ram(16 << 20)
        #expect(throws: BootError.self) { try boot(SampleImage.bytes, into: memory) }
    }

    @Test func `every truncation up to the entry point is refused`() throws {
        let memory = try ram()
        for length in 0...0x800 { #expect(throws: BootError.self) { try boot(Array(SampleImage.bytes[..<length]), into: memory) } }
    }

    @Test func `any flipped bit of the header ends in registers or an error`() throws {
        let memory = try ram(32 << 20)
        for bit in 8 * 0x1F0..<8 * 0x290 {
            var damaged = SampleImage.bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            _ = try? boot(damaged, into: memory)
        }
    }
}
