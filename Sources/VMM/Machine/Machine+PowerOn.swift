internal import GuestMemory
internal import KVM
internal import LinuxSystem
internal import SystemPackage

extension Machine {
    /// Puts a kernel into RAM and points the first vCPU at it. The other vCPUs wait for INIT.
    func boot(_ lent: LentResources, commandLine: String) throws(VMMError) {
        guard let kernel = lent.kernel else { throw VMMError("no kernel was lent") }
        let files = try doing("boot files") { () throws(BootError) in
            BootFiles(
                kernel: try BootFile("kernel", kernel),
                initialRAMDisk: try lent.initialRAMDisk.map { file throws(BootError) in try BootFile("initrd", file) },
                commandLine: commandLine, tables: ACPITables(blueprint))
        }
        let start = try doing("boot files") { () throws(BootError) in try Boot.load(files, into: memory) }
        try doing("setting the first registers") { () throws(Errno) in try firstVCPU.set(StartRegisters(start)) }
    }
}

extension StartRegisters {
    init(_ boot: BootRegisters) {
        self.init(code: Segment(boot.code), data: Segment(boot.data), task: Segment(boot.task))
        rip = boot.rip
        rflags = boot.rflags
        rbx = boot.rbx
        rsi = boot.rsi
        cr0 = boot.cr0
        cr3 = boot.cr3
        cr4 = boot.cr4
        efer = boot.efer
        gdtBase = boot.descriptorTableBase
        gdtLimit = boot.descriptorTableLimit
    }
}

extension Segment {
    init(_ boot: BootSegment) {
        self.init(
            selector: boot.selector, base: boot.base, limit: boot.limit, type: boot.type, isCodeOrData: boot.isCodeOrData,
            isLong: boot.isLong, isBig: boot.isBig, hasPageGranularity: boot.hasPageGranularity)
    }
}
