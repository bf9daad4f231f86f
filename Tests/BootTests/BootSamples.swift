import GuestMemory
import LinuxSystem
import Wire

@testable import VMM

/// RAM to load into.
func ram(_ size: Int = 64 << 20) throws -> GuestMemory {
    let object = try MemoryDescriptor(name: "ram", size: size)
    return GuestMemory(GuestMemoryLayout(size: size), mapping: try SharedMapping(of: object.descriptor, length: size))
}

/// A small PVH kernel: one segment of 0x40 bytes at 1 MiB, entered at its ninth byte, and the Xen note.
struct SampleELF {
    static let content: [UInt8] = (0..<0x40).map { UInt8($0) }
    var segments: [(address: UInt64, offset: UInt64, fileSize: UInt64, memorySize: UInt64)] = [(0x10_0000, 0x200, 0x40, 0x2000)]
    var note: [UInt8] = SampleELF.note(entry: 0x10_0008)
    var noteLength: UInt64?

    static func note(entry: UInt32, name: String = "Xen\0", kind: UInt32 = 18) -> [UInt8] {
        var writer = WireWriter()
        writer.u32(UInt32(name.utf8.count))
        writer.u32(4)
        writer.u32(kind)
        writer.raw(Array(name.utf8))
        writer.u32(entry)
        return writer.bytes
    }

    var bytes: [UInt8] {
        var writer = WireWriter()
        writer.raw([0x7F, 0x45, 0x4C, 0x46, 2, 1, 1])
        writer.zeros(9)
        writer.u16(2)  // e_type: ET_EXEC
        writer.u16(62)  // e_machine: EM_X86_64
        writer.u32(1)
        writer.u64(0x10_0008)  // e_entry
        writer.u64(64)  // e_phoff
        writer.u64(0)
        writer.u32(0)
        writer.u16(64)
        writer.u16(56)
        writer.u16(UInt16(segments.count + 1))
        writer.zeros(6)
        for segment in segments { header(&writer, 1, segment.offset, segment.address, segment.fileSize, segment.memorySize) }
        header(&writer, 4, 0x180, 0, noteLength ?? UInt64(note.count), UInt64(note.count))
        writer.zeros(0x180 - writer.count)
        writer.raw(note)
        writer.zeros(0x200 - writer.count)
        writer.raw(Self.content)
        return writer.bytes
    }

    private func header(_ writer: inout WireWriter, _ kind: UInt32, _ offset: UInt64, _ address: UInt64, _ fileSize: UInt64, _ memorySize: UInt64) {
        writer.u32(kind)
        writer.u32(7)
        writer.u64(offset)
        writer.u64(address)
        writer.u64(address)
        writer.u64(fileSize)
        writer.u64(memorySize)
        writer.u64(4)
    }
}

/// A small bzImage: two setup sectors, then 0x1000 bytes to be loaded at 16 MiB.
enum SampleImage {
    static let bytes: [UInt8] = {
        var image = [UInt8](repeating: 0, count: 0x600 + 0x1000)
        func put<Value: FixedWidthInteger>(_ value: Value, _ offset: Int) {
            for index in 0..<MemoryLayout<Value>.size { image[offset + index] = UInt8(truncatingIfNeeded: value >> Value(8 * index)) }
        }
        image[0x1F1] = 2
        put(UInt16(0xAA55), 0x1FE)
        image[0x201] = 0x6A  // the header ends at 0x26C
        put(UInt32(0x5372_6448), 0x202)
        put(UInt16(0x020F), 0x206)
        image[0x211] = 1
        put(UInt32(0x37FF_FFFF), 0x22C)
        put(UInt32(0x20_0000), 0x230)
        image[0x234] = 1
        put(UInt16(0x3), 0x236)
        put(UInt32(2047), 0x238)
        put(UInt64(0x100_0000), 0x258)
        put(UInt32(0x10_0000), 0x260)
        for index in 0x600..<image.count { image[index] = 0xC3 }
        return image
    }()
}

/// Loads `kernel`.
func boot(_ kernel: [UInt8], initrd: [UInt8]? = nil, commandLine: String = "quiet", into memory: GuestMemory) throws -> BootRegisters {
    try Boot.load(
        BootFiles(
            kernel: BootFile("kernel", bytes: kernel), initialRAMDisk: initrd.map { BootFile("initrd", bytes: $0) }, commandLine: commandLine),
        into: memory)
}
