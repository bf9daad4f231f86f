/// A 64-bit ELF executable: its loadable segments and its PVH entry point (System V ABI; Xen's `elfnote.h`).
struct BootELF: Sendable {
    struct Segment: Sendable {
        let index: Int
        let offset: UInt64
        let fileSize: UInt64
        let memorySize: UInt64
        /// Guest-physical.
        let address: UInt64
    }

    static let magic: [UInt8] = [0x7F, 0x45, 0x4C, 0x46]
    private static let headerLength: UInt64 = 64
    private static let programHeaderLength: UInt64 = 56
    private static let maximumProgramHeaders = 128
    private static let maximumNotes: UInt64 = 64 << 10
    /// XEN_ELFNOTE_PHYS32_ENTRY.
    private static let entryNote: UInt32 = 18

    let segments: [Segment]
    /// Guest-physical, from the Xen note.
    let entry: UInt32

    /// Reads headers and notes of `file`.
    init(_ file: BootFile) throws(BootError) {
        let header = BootFields(bytes: try file.read("the ELF header", at: 0, count: Self.headerLength))
        try Self.check(header)
        let start = header.integer(UInt64.self, at: 32)
        let count = Int(header.integer(UInt16.self, at: 56))
        guard (1...Self.maximumProgramHeaders).contains(count) else {
            throw .field("e_phnum", value: UInt64(count), reason: "1 to \(Self.maximumProgramHeaders) program headers are supported")
        }
        let table = BootFields(bytes: try file.read("the program header table", at: start, count: UInt64(count) * Self.programHeaderLength))
        var segments: [Segment] = []
        var entry: UInt32?
        for index in 0..<count {
            let at = index * Int(Self.programHeaderLength)
            switch table.integer(UInt32.self, at: at) {
            case 1: segments.append(try Self.segment(table, at, index))
            case 4:
                let length = table.integer(UInt64.self, at: at + 32)
                if length > Self.maximumNotes { throw .field("p_filesz of note segment \(index)", value: length, reason: "over 64 KiB") }
                let notes = try file.read("note segment \(index)", at: table.integer(at: at + 8), count: length)
                if entry == nil { entry = try Self.entry(in: notes, alignment: table.integer(at: at + 48)) }
            default: break
            }
        }
        if segments.isEmpty { throw .missing("a loadable segment") }
        guard let entry else { throw .missing("the PVH entry point (Xen note 18)") }
        guard segments.contains(where: { UInt64(entry) >= $0.address && UInt64(entry) - $0.address < $0.fileSize }) else {
            throw .field("the PVH entry point", value: UInt64(entry), reason: "it lies in no loaded segment")
        }
        self.segments = segments
        self.entry = entry
    }

    private static func check(_ header: BootFields) throws(BootError) {
        func expect(_ field: String, _ value: UInt64, _ allowed: [UInt64], _ reason: String) throws(BootError) {
            if !allowed.contains(value) { throw .field(field, value: value, reason: reason) }
        }
        try expect("EI_CLASS", UInt64(header.bytes[4]), [2], "only 64-bit files are supported")
        try expect("EI_DATA", UInt64(header.bytes[5]), [1], "only little-endian files are supported")
        try expect("e_type", UInt64(header.integer(UInt16.self, at: 16)), [2, 3], "not an executable")
        try expect("e_machine", UInt64(header.integer(UInt16.self, at: 18)), [62], "not for x86-64")
        try expect("e_phentsize", UInt64(header.integer(UInt16.self, at: 54)), [programHeaderLength], "a program header has 56 bytes")
    }

    private static func segment(_ table: BootFields, _ at: Int, _ index: Int) throws(BootError) -> Segment {
        let segment = Segment(
            index: index, offset: table.integer(at: at + 8), fileSize: table.integer(at: at + 32), memorySize: table.integer(at: at + 40),
            address: table.integer(at: at + 24))
        if segment.fileSize > segment.memorySize {
            throw .field("p_filesz of segment \(index)", value: segment.fileSize, reason: "it is more than p_memsz")
        }
        return segment
    }

    /// The entry point in a note segment, if it has the note.
    private static func entry(in notes: [UInt8], alignment: UInt64) throws(BootError) -> UInt32? {
        let fields = BootFields(bytes: notes)
        let unit = alignment == 8 ? 8 : 4
        var at = 0
        while notes.count - at >= 12 {
            let nameLength = Int(fields.integer(UInt32.self, at: at))
            let contentLength = Int(fields.integer(UInt32.self, at: at + 4))
            let content = (at + 12 + nameLength + unit - 1) / unit * unit
            let end = content + contentLength
            guard end <= notes.count else {
                throw .truncated(field: "a note", offset: UInt64(at), length: UInt64(end - at), fileSize: notes.count)
            }
            if fields.integer(UInt32.self, at: at + 8) == entryNote, Array(notes[at + 12..<at + 12 + nameLength]) == Array("Xen\0".utf8) {
                return try entry(fields, content, contentLength)
            }
            at = (end + unit - 1) / unit * unit
        }
        return nil
    }

    private static func entry(_ fields: BootFields, _ at: Int, _ length: Int) throws(BootError) -> UInt32 {
        switch length {
        case 4: return fields.integer(at: at)
        case 8:
            let value = fields.integer(UInt64.self, at: at)
            guard let entry = UInt32(exactly: value) else {
                throw .field("the PVH entry point", value: value, reason: "it must lie below 4 GiB")
            }
            return entry
        default: throw .field("the length of the PVH entry note", value: UInt64(length), reason: "it must be 4 or 8")
        }
    }
}
