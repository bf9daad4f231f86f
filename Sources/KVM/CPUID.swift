/// One CPUID leaf, or one subleaf of it (`struct kvm_cpuid_entry2`).
package struct CPUIDEntry: Equatable, Sendable {
    package var function: UInt32
    package var index: UInt32
    /// KVM_CPUID_FLAG_SIGNIFCANT_INDEX is bit 0.
    package var flags: UInt32
    package var eax: UInt32
    package var ebx: UInt32
    package var ecx: UInt32
    package var edx: UInt32

    package init(function: UInt32, index: UInt32 = 0, flags: UInt32 = 0, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
        self.function = function
        self.index = index
        self.flags = flags
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }

    /// Whether the subleaf number selects this entry.
    package var hasIndex: Bool { flags & 1 != 0 }
}

/// What a vCPU answers to CPUID.
package struct CPUIDTable: Equatable, Sendable {
    package var entries: [CPUIDEntry]

    private static let headerSize = 8
    private static let entrySize = 40

    package init(_ entries: [CPUIDEntry]) { self.entries = entries }

    package subscript(function: UInt32, index: UInt32) -> CPUIDEntry? {
        entries.first { $0.function == function && (!$0.hasIndex || $0.index == index) }
    }

    /// Changes every entry of a leaf.
    package mutating func update(_ function: UInt32, _ change: (inout CPUIDEntry) -> Void) {
        for position in entries.indices where entries[position].function == function { change(&entries[position]) }
    }

    /// Replaces a leaf without subleaves, or adds it.
    package mutating func replace(_ entry: CPUIDEntry) {
        entries.removeAll { $0.function == entry.function && $0.index == entry.index }
        entries.append(entry)
    }

    /// A `struct kvm_cpuid2` with room for `room` entries.
    static func buffer(room: Int) -> KernelBuffer {
        let buffer = KernelBuffer(count: headerSize + entrySize * room)
        buffer.store(UInt32(room), at: 0)
        return buffer
    }

    init(_ buffer: KernelBuffer) {
        entries = (0..<Int(buffer.load32(at: 0))).map { position in
            let at = Self.headerSize + Self.entrySize * position
            return CPUIDEntry(
                function: buffer.load32(at: at), index: buffer.load32(at: at + 4), flags: buffer.load32(at: at + 8),
                eax: buffer.load32(at: at + 12), ebx: buffer.load32(at: at + 16), ecx: buffer.load32(at: at + 20),
                edx: buffer.load32(at: at + 24))
        }
    }

    var buffer: KernelBuffer {
        let buffer = Self.buffer(room: max(1, entries.count))
        buffer.store(UInt32(entries.count), at: 0)
        for (position, entry) in entries.enumerated() {
            let words = [entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx]
            for (word, value) in words.enumerated() {
                buffer.store(value, at: Self.headerSize + Self.entrySize * position + 4 * word)
            }
        }
        return buffer
    }
}
