internal import GuestMemory

/// A segment register at entry, hidden part included.
struct BootSegment: Sendable, Equatable {
    var selector: UInt16 = 0
    var base: UInt64 = 0
    /// In bytes, minus one.
    var limit: UInt32 = 0xFFFF_FFFF
    /// Descriptor type (SDM volume 3, table 3-1 and 3-2).
    var type: UInt8
    /// A code or data segment, not a system one.
    var isCodeOrData = true
    /// 64-bit code.
    var isLong = false
    /// 32-bit default operand size.
    var isBig = true
    /// The limit counts pages.
    var hasPageGranularity = true

    static func code(selector: UInt16, isLong: Bool) -> BootSegment {
        BootSegment(selector: selector, type: 0xB, isLong: isLong, isBig: !isLong)  // execute, read, accessed
    }
    static func data(selector: UInt16) -> BootSegment { BootSegment(selector: selector, type: 0x3) }  // read, write, accessed
    /// A busy 32-bit TSS, which the processor demands.
    static let task = BootSegment(limit: 0x67, type: 0xB, isCodeOrData: false, isBig: false, hasPageGranularity: false)
}

/// The first vCPU's registers at entry. Those not named are 0; interrupts are off; the local APIC is as after reset.
struct BootRegisters: Sendable, Equatable {
    var rip: UInt64
    var rflags: UInt64 = 2
    var rbx: UInt64 = 0
    var rsi: UInt64 = 0
    var cr0: UInt64
    var cr3: UInt64 = 0
    var cr4: UInt64 = 0
    var efer: UInt64 = 0
    var code: BootSegment
    /// DS, ES, SS, FS and GS.
    var data: BootSegment
    var task = BootSegment.task
    var descriptorTableBase: UInt64 = 0
    var descriptorTableLimit: UInt16 = 0
}

/// What a machine starts.
struct BootFiles: Sendable {
    let kernel: BootFile
    let initialRAMDisk: BootFile?
    let commandLine: String
    /// What the kernel is told of the machine; nil for nothing.
    var tables: ACPITables?
}

/// Puts a kernel with what belongs to it into RAM and says how to enter it.
enum Boot {
    /// Loads `files` into memory that is all zeros.
    ///
    /// An ELF file is entered by the PVH boot protocol, a bzImage by Linux' 64-bit boot protocol.
    static func load(_ files: BootFiles, into memory: GuestMemory) throws(BootError) -> BootRegisters {
        if files.commandLine.utf8.contains(0) { throw .commandLineNotText }
        if let tables = files.tables { try write(tables.bytes, "the ACPI tables", at: ACPITables.address, to: memory) }
        let magic = try files.kernel.read("the kernel's first bytes", at: 0, count: 4)
        if magic == BootELF.magic { return try BootPVH.load(files, into: memory) }
        if BootLinux.recognises(files.kernel) { return try BootLinux.load(files, into: memory) }
        throw .unknownFormat
    }

    /// Writes the command line and its NUL.
    static func write(_ commandLine: String, limit: Int, to memory: GuestMemory) throws(BootError) {
        let bytes = Array(commandLine.utf8)
        if bytes.count > limit { throw .commandLineTooLong(length: bytes.count, limit: limit) }
        try write(bytes + [0], "the command line", at: BootLayout.commandLine, to: memory)
    }

    /// Writes bytes that the machine itself starts with.
    static func write(_ bytes: [UInt8], _ what: String, at address: UInt64, to memory: GuestMemory) throws(BootError) {
        do { try memory.write(bytes, at: address) } catch {
            throw .placement(of: what, address: address, length: UInt64(bytes.count), reason: "does not lie in RAM")
        }
    }

    /// Places the initial RAM disk as high as it may lie; nil when there is none.
    static func loadInitialRAMDisk(
        _ file: BootFile?, limit: UInt64, _ placement: inout BootPlacement, into memory: GuestMemory
    ) throws(BootError) -> (address: UInt64, length: UInt64)? {
        guard let file, file.size > 0 else { return nil }
        let length = UInt64(file.size)
        let address = try placement.claimHighest("the initial RAM disk", length: length, limit: limit)
        try file.copy("the initial RAM disk", at: 0, count: length, to: address, of: memory)
        return (address, length)
    }
}
