internal import GuestMemory
internal import Wire

/// Linux' 64-bit boot protocol (the kernel's `Documentation/arch/x86/boot.rst`): a bzImage entered 0x200 bytes into its protected-mode
/// part, in long mode on identity page tables, with the address of `struct boot_params` in RSI.
enum BootLinux {
    /// Fields of the setup header, by their offsets in the file and in boot_params.
    private enum Offset {
        static let setupSectors = 0x1F1
        static let signature = 0x1FE
        static let jump = 0x201
        static let magic = 0x202
        static let version = 0x206
        static let loaderType = 0x210
        static let loadFlags = 0x211
        static let code32Start = 0x214
        static let diskAddress = 0x218
        static let diskLength = 0x21C
        static let commandLinePointer = 0x228
        static let diskLimit = 0x22C
        static let alignment = 0x230
        static let isRelocatable = 0x234
        static let extendedLoadFlags = 0x236
        static let commandLineSize = 0x238
        static let preferredAddress = 0x258
        static let initSize = 0x260
        static let rootPointer = 0x070
        static let mapCount = 0x1E8
        static let map = 0x2D0
    }

    /// The setup header ends here at the latest (edd_mbr_sig_buffer follows).
    private static let headerLimit = 0x290
    private static let minimumVersion: UInt16 = 0x020C
    private static let magic: UInt32 = 0x5372_6448  // "HdrS"
    private static let entryOffset: UInt64 = 0x200
    private static let undefinedLoader: UInt8 = 0xFF

    /// Whether `file` has a setup header, however old or wrong.
    static func recognises(_ file: BootFile) -> Bool {
        guard let bytes = try? file.read("the setup header's magic", at: UInt64(Offset.magic), count: 4) else { return false }
        return BootFields(bytes: bytes).integer(UInt32.self, at: 0) == magic
    }

    static func load(_ files: BootFiles, into memory: GuestMemory) throws(BootError) -> BootRegisters {
        let file = files.kernel
        let header = BootFields(bytes: try file.read("the setup header", at: 0, count: UInt64(headerLimit)))
        try check(header)
        var placement = BootPlacement(memory.layout)
        let start = UInt64(header.bytes[Offset.setupSectors] == 0 ? 4 : header.bytes[Offset.setupSectors]) * 512 + 512
        guard UInt64(file.size) > start + entryOffset else {
            throw .truncated(field: "the protected-mode kernel", offset: start, length: entryOffset + 1, fileSize: file.size)
        }
        let length = UInt64(file.size) - start
        let room = max(length, UInt64(header.integer(UInt32.self, at: Offset.initSize)))
        let address = try place(header, room, &placement)
        try file.copy("the protected-mode kernel", at: start, count: length, to: address, of: memory)
        let diskLimit = UInt64(header.integer(UInt32.self, at: Offset.diskLimit)) + 1
        let disk = try Boot.loadInitialRAMDisk(files.initialRAMDisk, limit: diskLimit, &placement, into: memory)
        let commandLineLimit = min(Int(header.integer(UInt32.self, at: Offset.commandLineSize)), BootLayout.commandLineRoom - 1)
        try Boot.write(files.commandLine, limit: commandLineLimit, to: memory)
        let page = zeroPage(header, address, disk, memory.layout, rootPointer: files.tables == nil ? 0 : ACPITables.address)
        try Boot.write(page, "boot_params", at: BootLayout.zeroPage, to: memory)
        try Boot.write(pageTables, "the page tables", at: BootLayout.pageTables, to: memory)
        try Boot.write(descriptorTable(), "the descriptor table", at: BootLayout.descriptorTable, to: memory)
        return BootRegisters(
            rip: address + entryOffset, rsi: BootLayout.zeroPage, cr0: 0x8000_0011,  // PG, ET, PE
            cr3: BootLayout.pageTables, cr4: 0x20,  // PAE
            efer: 0x500,  // LMA, LME
            code: .code(selector: 0x10, isLong: true), data: .data(selector: 0x18), descriptorTableBase: BootLayout.descriptorTable,
            descriptorTableLimit: 31)
    }

    private static func check(_ header: BootFields) throws(BootError) {
        let signature = header.integer(UInt16.self, at: Offset.signature)
        if signature != 0xAA55 { throw .field("boot_flag", value: UInt64(signature), reason: "it must be 0xaa55") }
        let version = header.integer(UInt16.self, at: Offset.version)
        if version < minimumVersion { throw .field("the boot protocol's version", value: UInt64(version), reason: "0x20c is the oldest supported") }
        let flags = header.bytes[Offset.loadFlags]
        if flags & 1 == 0 { throw .field("loadflags", value: UInt64(flags), reason: "only kernels loaded high are supported (bit 0)") }
        let extended = header.integer(UInt16.self, at: Offset.extendedLoadFlags)
        if extended & 1 == 0 { throw .field("xloadflags", value: UInt64(extended), reason: "the kernel has no 64-bit entry point (bit 0)") }
        if Offset.magic + Int(header.bytes[Offset.jump]) > headerLimit {
            throw .field("the setup header's length", value: UInt64(header.bytes[Offset.jump]), reason: "it ends beyond 0x290")
        }
    }

    /// Where the kernel goes: where it prefers to be.
    private static func place(_ header: BootFields, _ room: UInt64, _ placement: inout BootPlacement) throws(BootError) -> UInt64 {
        let preferred = header.integer(UInt64.self, at: Offset.preferredAddress)
        let alignment = UInt64(header.integer(UInt32.self, at: Offset.alignment))
        if header.bytes[Offset.isRelocatable] != 0 && (alignment == 0 || preferred % alignment != 0) {
            throw .field("pref_address", value: preferred, reason: "it is no multiple of kernel_alignment, \(alignment)")
        }
        guard preferred >= 0x10_0000 && preferred < 1 << 32 else {
            throw .field("pref_address", value: preferred, reason: "it must lie between 1 MiB and 4 GiB")
        }
        try placement.claim("the kernel with its work space", at: preferred, length: room)
        return preferred
    }

    /// `struct boot_params`: the setup header as it is in the file, with the loader's fields filled in, and the memory map.
    private static func zeroPage(
        _ header: BootFields, _ address: UInt64, _ disk: (address: UInt64, length: UInt64)?, _ layout: GuestMemoryLayout, rootPointer: UInt64
    ) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        let end = Offset.magic + Int(header.bytes[Offset.jump])
        for index in Offset.setupSectors..<end { page[index] = header.bytes[index] }
        func put<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value, at offset: Int) {
            for index in 0..<MemoryLayout<Value>.size { page[offset + index] = UInt8(truncatingIfNeeded: value >> Value(8 * index)) }
        }
        put(rootPointer, at: Offset.rootPointer)
        page[Offset.loaderType] = undefinedLoader
        put(UInt32(truncatingIfNeeded: address), at: Offset.code32Start)
        put(UInt32(truncatingIfNeeded: disk?.address ?? 0), at: Offset.diskAddress)
        put(UInt32(truncatingIfNeeded: disk?.length ?? 0), at: Offset.diskLength)
        put(UInt32(BootLayout.commandLine), at: Offset.commandLinePointer)
        let map = BootMemoryRange.map(of: layout)
        page[Offset.mapCount] = UInt8(map.count)
        for (index, range) in map.enumerated() {
            put(range.address, at: Offset.map + 20 * index)
            put(range.length, at: Offset.map + 20 * index + 8)
            put(range.kind.rawValue, at: Offset.map + 20 * index + 16)
        }
        return page
    }

    /// The first 4 GiB one to one, in pages of 2 MiB.
    private static let pageTables: [UInt8] = {
        var writer = WireWriter(capacity: 6 * 4096)
        writer.u64(BootLayout.pageTables + 0x1000 | 3)  // present, writable
        writer.zeros(4096 - 8)
        for directory in 0..<4 { writer.u64(BootLayout.pageTables + 0x2000 + UInt64(directory) * 0x1000 | 3) }
        writer.zeros(4096 - 32)
        for page in 0..<2048 { writer.u64(UInt64(page) << 21 | 0x83) }  // present, writable, large
        return writer.bytes
    }()

    /// Null, nothing, `__BOOT_CS` (0x10, 64-bit code), `__BOOT_DS` (0x18, data).
    private static func descriptorTable() -> [UInt8] {
        var writer = WireWriter(capacity: 32)
        for descriptor in [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF] as [UInt64] { writer.u64(descriptor) }
        return writer.bytes
    }
}
