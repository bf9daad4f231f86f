internal import GuestMemory
internal import Wire

/// The PVH boot protocol (Xen's `docs/misc/pvh.pandoc` and `start_info.h`): entered in 32-bit protected mode, without paging, with the
/// address of a structure in EBX that tells command line, modules and memory map.
enum BootPVH {
    private static let magic: UInt32 = 0x336E_C578

    static func load(_ files: BootFiles, into memory: GuestMemory) throws(BootError) -> BootRegisters {
        let elf = try BootELF(files.kernel)
        var placement = BootPlacement(memory.layout)
        for segment in elf.segments {
            let what = "segment \(segment.index)"
            try placement.claim(what, at: segment.address, length: segment.memorySize)
            try files.kernel.copy(what, at: segment.offset, count: segment.fileSize, to: segment.address, of: memory)
        }
        let disk = try Boot.loadInitialRAMDisk(files.initialRAMDisk, limit: 1 << 32, &placement, into: memory)
        try Boot.write(files.commandLine, limit: BootLayout.commandLineRoom - 1, to: memory)
        let map = BootMemoryRange.map(of: memory.layout)
        let info = startInfo(modules: disk == nil ? 0 : 1, mapEntries: map.count, rootPointer: files.tables == nil ? 0 : ACPITables.address)
        try Boot.write(info, "the start info", at: BootLayout.startInfo, to: memory)
        if let disk { try Boot.write(module(disk), "the module list", at: BootLayout.moduleList, to: memory) }
        try Boot.write(encode(map), "the memory map", at: BootLayout.memoryMap, to: memory)
        return BootRegisters(
            rip: UInt64(elf.entry), rbx: BootLayout.startInfo, cr0: 0x11,  // ET, PE
            code: .code(selector: 0x08, isLong: false), data: .data(selector: 0x10))
    }

    /// `struct hvm_start_info`, version 1.
    private static func startInfo(modules: UInt32, mapEntries: Int, rootPointer: UInt64) -> [UInt8] {
        var writer = WireWriter(capacity: 56)
        writer.u32(magic)
        writer.u32(1)  // version
        writer.u32(0)  // flags: not the initial domain
        writer.u32(modules)
        writer.u64(modules == 0 ? 0 : BootLayout.moduleList)
        writer.u64(BootLayout.commandLine)
        writer.u64(rootPointer)
        writer.u64(BootLayout.memoryMap)
        writer.u32(UInt32(mapEntries))
        writer.u32(0)
        return writer.bytes
    }

    /// `struct hvm_modlist_entry`.
    private static func module(_ place: (address: UInt64, length: UInt64)) -> [UInt8] {
        var writer = WireWriter(capacity: 32)
        writer.u64(place.address)
        writer.u64(place.length)
        writer.u64(0)  // no command line of its own
        writer.u64(0)
        return writer.bytes
    }

    /// `struct hvm_memmap_table_entry`, one after another.
    private static func encode(_ map: [BootMemoryRange]) -> [UInt8] {
        var writer = WireWriter(capacity: 24 * map.count)
        for range in map {
            writer.u64(range.address)
            writer.u64(range.length)
            writer.u32(range.kind.rawValue)
            writer.u32(0)
        }
        return writer.bytes
    }
}
