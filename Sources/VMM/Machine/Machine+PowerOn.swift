internal import GuestMemory
internal import KVM
internal import LinuxSystem
internal import SystemPackage

extension Machine {
    /// Puts a kernel into RAM and points the first vCPU at it. The other vCPUs wait for INIT.
    func boot(_ lent: LentResources, commandLine: String) throws(VMMError) {
        guard let kernel = lent.kernel else { throw VMMError("no kernel was lent") }
        let bytes = try doing("kernel") { () throws(Errno) in try kernel.descriptor.read(upTo: try kernel.descriptor.size(), at: 0) }
        let start = try loadPVH(bytes)
        let first = firstVCPU
        try doing("setting the first registers") { () throws(Errno) in try first.set(start) }
    }

    // Temporary.
    private func loadPVH(_ elf: [UInt8]) throws(VMMError) -> StartState {
        func u16(_ at: Int) -> Int { Int(elf[at]) | Int(elf[at + 1]) << 8 }
        func u32(_ at: Int) -> Int { u16(at) | u16(at + 2) << 16 }
        func u64(_ at: Int) -> Int { u32(at) | u32(at + 4) << 32 }
        let is64 = elf[4] == 2
        let table = is64 ? u64(32) : u32(28)
        let size = is64 ? u16(54) : u16(42)
        let count = is64 ? u16(56) : u16(44)
        var entry = 0
        for index in 0..<count {
            let at = table + size * index
            let offset = is64 ? u64(at + 8) : u32(at + 4)
            let address = is64 ? u64(at + 24) : u32(at + 12)
            let length = is64 ? u64(at + 32) : u32(at + 16)
            if u32(at) == 1 {
                try doing("loading") { () throws(GuestMemoryError) in try memory.write(Array(elf[offset..<offset + length]), at: UInt64(address)) }
            } else if u32(at) == 4 {
                var note = offset
                while note < offset + length {
                    let name = (u32(note) + 3) & ~3
                    let content = (u32(note + 4) + 3) & ~3
                    if u32(note + 8) == 18 { entry = u32(note + 12 + name) }
                    note += 12 + name + content
                }
            }
        }
        if entry == 0 { throw VMMError("no PVH entry") }
        try doing("start info") { () throws(GuestMemoryError) in
            try memory.write(integer: UInt32(0x336e_c578), at: 0x6000)
        }
        return .protectedMode(entry: UInt32(entry), startInfo: 0x6000)
    }
}
