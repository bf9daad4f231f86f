internal import GuestMemory
internal import LinuxSystem
internal import SystemPackage

/// A kernel or initial RAM disk, read in pieces. Nothing in it is trusted.
struct BootFile: Sendable {
    /// For messages: `kernel`, `initrd`.
    let name: String
    let size: Int
    private let source: @Sendable (_ count: Int, _ offset: Int) throws(Errno) -> [UInt8]

    /// Bytes copied into the guest at once.
    private static let stride = 4 << 20

    init(_ name: String, _ descriptor: SharedDescriptor) throws(BootError) {
        self.name = name
        do { size = try descriptor.descriptor.size() } catch { throw .unreadable(file: name, reason: "\(error)") }
        source = { count, offset throws(Errno) in try descriptor.descriptor.read(upTo: count, at: offset) }
    }

    /// A file in memory.
    init(_ name: String, bytes: [UInt8]) {
        self.name = name
        size = bytes.count
        source = { count, offset throws(Errno) in Array(bytes[min(offset, bytes.count)..<min(offset + count, bytes.count)]) }
    }

    /// Reads `count` bytes that are called `field` in messages.
    func read(_ field: String, at offset: UInt64, count: UInt64) throws(BootError) -> [UInt8] {
        try checkBounds(field, offset, count)
        let bytes: [UInt8]
        do { bytes = try source(Int(count), Int(offset)) } catch { throw .unreadable(file: name, reason: "\(error)") }
        if bytes.count != Int(count) { throw .unreadable(file: name, reason: "it became shorter while it was read") }
        return bytes
    }

    /// Copies `count` bytes that are called `field` in messages into the guest.
    func copy(_ field: String, at offset: UInt64, count: UInt64, to address: UInt64, of memory: GuestMemory) throws(BootError) {
        try checkBounds(field, offset, count)
        var done: UInt64 = 0
        while done < count {
            let piece = try read(field, at: offset + done, count: min(UInt64(Self.stride), count - done))
            do { try memory.write(piece, at: address + done) } catch {
                throw .placement(of: field, address: address, length: count, reason: "does not lie in RAM")
            }
            done += UInt64(piece.count)
        }
    }

    private func checkBounds(_ field: String, _ offset: UInt64, _ count: UInt64) throws(BootError) {
        let (end, overflow) = offset.addingReportingOverflow(count)
        if overflow || end > UInt64(size) { throw .truncated(field: field, offset: offset, length: count, fileSize: size) }
    }
}

/// Little-endian fields of a header that has been read whole.
struct BootFields: Sendable {
    let bytes: [UInt8]

    /// The field of `Value`'s width at `offset`, which the header's length includes.
    func integer<Value: FixedWidthInteger & UnsignedInteger>(_: Value.Type = Value.self, at offset: Int) -> Value {
        (0..<MemoryLayout<Value>.size).reduce(0) { $0 | Value(bytes[offset + $1]) << Value(8 * $1) }
    }
}
