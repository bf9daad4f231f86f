import Checkpoint
import LinuxSystem
import Wire

/// The golden files beside these sources: checkpoints as released versions wrote them. They are never rewritten; a new format version
/// adds files.
enum Golden {
    static let directory: String = {
        var parts = #filePath.split(separator: "/")
        parts.removeLast()
        return "/" + parts.joined(separator: "/") + "/Golden/"
    }()

    static let names = ["empty", "one-section", "sections", "newer-sections"]

    static func read(_ name: String) throws -> [UInt8] {
        try OwnedDescriptor.open(directory + name + ".checkpoint", followingLinks: true).readAll(limit: 1 << 20)
    }

    static let machine = MachineID(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908)
    static let identity = CheckpointIdentity(machine: machine, generation: 7)
    static let ranges = [
        SectionRange("cpu", writes: 1...2, reads: 1...2), SectionRange("serial", writes: 1...1, reads: 1...1),
        SectionRange("clock", writes: 3...3, reads: 2...3),
    ]

    /// What the file of that name must hold, written by this version.
    static func write(_ name: String) -> [UInt8] {
        var writer = CheckpointWriter()
        writer.begin(writer: "0.1.0", machine: machine, generation: 7)
        switch name {
        case "one-section":
            writer.section("cpu", version: 1) { $0.u64(0x0123_4567_89AB_CDEF) }
        case "sections":
            writer.append(EncodedSection("cpu", instance: 0, version: 2, content: [1, 2, 3, 4]))
            writer.append(EncodedSection("cpu", instance: 1, version: 2, content: [5, 6, 7, 8]))
            writer.section("serial", version: 1) { $0.string("COM1") }
            writer.section("clock", version: 3) { _ in }
            writer.section("hint", version: 1, mustUnderstand: false) { $0.u8(9) }
        case "newer-sections":
            // From a newer writer that says a reader of version 3 suffices, with more at the end.
            writer.section("clock", version: 5, minimumReader: 3) { content in
                content.u32(1)
                content.u32(2)
            }
        default: break
        }
        return writer.finish()
    }
}
