internal import CLinux
package import LinuxSystem
package import SystemPackage

/// Stretches of a guest's RAM, in order, that the kernel reads or writes in one call (readv(2)): a scatter-gather list of which every
/// byte has been found to be RAM.
///
/// Made once and used again and again: emptied, it keeps its room.
package struct GuestVector: Sendable {
    private let memory: GuestMemory  // keeps the addresses valid
    private var parts: [cl_vector] = []
    /// The part that holds the first byte; those before have been dropped.
    private var first = 0
    /// Bytes in all.
    package private(set) var count = 0

    /// An empty list.
    ///
    /// - Parameter capacity: parts for which room is made at once.
    package init(_ memory: GuestMemory, capacity: Int = 0) {
        self.memory = memory
        parts.reserveCapacity(capacity)
    }

    /// Parts that one call to the kernel would take; it takes at most ``maximumParts``.
    package var partCount: Int { parts.count - first }
    /// IOV_MAX.
    package static let maximumParts = Int(CL_VECTORS)

    package mutating func removeAll() {
        parts.removeAll(keepingCapacity: true)
        first = 0
        count = 0
    }

    /// Appends `count` bytes at a guest-physical address, which one region of RAM must hold.
    package mutating func append(_ address: UInt64, _ count: Int) throws(GuestMemoryError) {
        let offset = try memory.offset(address, count)
        if count == 0 { return }
        let host = UInt64(memory.mapping.address) + UInt64(offset)
        let last = parts.count - 1
        if last >= first && parts[last].address + parts[last].length == host {
            parts[last].length += UInt64(count)
        } else {
            parts.append(cl_vector(address: host, length: UInt64(count)))
        }
        self.count += count
    }

    /// Drops the first `dropped` bytes, all if there are fewer.
    package mutating func removeFirst(_ dropped: Int) {
        var rest = UInt64(clamping: min(dropped, count))
        count -= Int(rest)
        while rest > 0 {
            let taken = min(rest, parts[first].length)
            parts[first].address += taken
            parts[first].length -= taken
            rest -= taken
            if parts[first].length == 0 { first += 1 }
        }
        // A list that is filled at one end and emptied at the other does not grow.
        if first >= Self.maximumParts || first == parts.count {
            parts.removeSubrange(..<first)
            first = 0
        }
    }

    /// Drops the last `dropped` bytes, all if there are fewer.
    package mutating func removeLast(_ dropped: Int) {
        var rest = UInt64(clamping: min(dropped, count))
        count -= Int(rest)
        while rest > 0, let last = parts.indices.last {
            let taken = min(rest, parts[last].length)
            parts[last].length -= taken
            rest -= taken
            if parts[last].length == 0 { parts.removeLast() }
        }
    }

    /// Fetches a little-endian integer at `offset` bytes from the start; nil where the list ends before it does.
    package func load<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type = Value.self, at offset: Int) -> Value? {
        var value: Value = 0
        // SAFETY: the bytes of a local; any bytes are a valid integer.
        let whole = unsafe withUnsafeMutableBytes(of: &value) { local in
            copy(at: offset, count: local.count) { part, done in
                // SAFETY: a part is RAM, and `copy` stays within the local's bytes.
                if let target = local.baseAddress { unsafe cl_copy_in(target + done, part.pointer, part.count) }
            }
        }
        return whole ? Value(littleEndian: value) : nil
    }

    /// Stores bytes at `offset` bytes from the start; `false`, and nothing stored, where the list ends before they do.
    @discardableResult
    package func store(_ bytes: [UInt8], at offset: Int) -> Bool {
        // SAFETY: the bytes of the array.
        unsafe bytes.withUnsafeBytes { unsafe store($0, at: offset) }
    }

    /// Stores a little-endian integer at `offset` bytes from the start; `false`, and nothing stored, where the list ends before it does.
    @discardableResult
    package func store<Value: FixedWidthInteger & BitwiseCopyable>(integer value: Value, at offset: Int) -> Bool {
        var value = value.littleEndian
        // SAFETY: the bytes of a local.
        return unsafe withUnsafeBytes(of: &value) { unsafe store($0, at: offset) }
    }

    private func store(_ source: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        copy(at: offset, count: source.count) { part, done in
            // SAFETY: a part is RAM, and `copy` stays within the source.
            if let start = source.baseAddress { unsafe cl_copy_in(part.pointer, start + done, part.count) }
        }
    }

    /// Bytes out of the guest, at most `limit`: a copy.
    package func bytes(limit: Int) -> [UInt8] {
        let length = min(limit, count)
        return unsafe [UInt8](unsafeUninitializedCapacity: length) { buffer, used in
            used = 0
            copy(at: 0, count: length) { part, done in
                // SAFETY: a part is RAM, and `copy` stays within `length`.
                if let start = buffer.baseAddress { unsafe cl_copy_in(start + done, part.pointer, part.count) }
            }
            used = length
        }
    }

    /// A piece of RAM that lies in one part.
    private struct Piece {
        let address: UInt64
        let count: Int
        var pointer: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)).unsafelyUnwrapped }
    }

    /// Calls `body` for each piece of a stretch with how many bytes came before; `false`, and nothing called, where the list is too short.
    @discardableResult
    private func copy(at offset: Int, count wanted: Int, _ body: (Piece, Int) -> Void) -> Bool {
        guard offset >= 0, wanted >= 0, offset <= count, wanted <= count - offset else { return false }
        var skip = UInt64(offset)
        var done = 0
        for part in parts[first...] {
            if done == wanted { break }
            if skip >= part.length {
                skip -= part.length
                continue
            }
            let length = min(Int(part.length - skip), wanted - done)
            body(Piece(address: part.address + skip, count: length), done)
            done += length
            skip = 0
        }
        return true
    }
}

/// The kernel's reads and writes of files straight from and to a guest's RAM.
extension GuestVector {
    /// Reads what a stream or a tap has into the start of the list, once; how many bytes.
    package func receive(from descriptor: borrowing OwnedDescriptor) throws(Errno) -> Int {
        try transfer(descriptor.number, writing: false, at: -1)
    }

    /// Writes the list to a stream or a tap, once; how many bytes it took.
    package func send(to descriptor: borrowing OwnedDescriptor) throws(Errno) -> Int {
        try transfer(descriptor.number, writing: true, at: -1)
    }

    /// Fills the whole list from a file at `offset`. A file that ends before throws `EIO`.
    package func read(from descriptor: borrowing OwnedDescriptor, at offset: Int64) throws(Errno) {
        try transferAll(descriptor.number, writing: false, at: offset)
    }

    /// Writes the whole list to a file at `offset`.
    package func write(to descriptor: borrowing OwnedDescriptor, at offset: Int64) throws(Errno) {
        try transferAll(descriptor.number, writing: true, at: offset)
    }

    private func transferAll(_ number: CInt, writing: Bool, at offset: Int64) throws(Errno) {
        var moved = try transfer(number, writing: writing, at: offset)
        if moved == count { return }
        var rest = self  // rarely: an interrupted call, more than one takes
        var position = offset
        while moved < rest.count {
            if moved == 0 { throw Errno.ioError }
            rest.removeFirst(moved)
            position += Int64(moved)
            moved = try rest.transfer(number, writing: writing, at: position)
        }
    }

    private func transfer(_ number: CInt, writing: Bool, at offset: Int64) throws(Errno) -> Int {
        let vectors = min(partCount, Self.maximumParts)
        if vectors == 0 { return 0 }
        // SAFETY: every part was found to be RAM of the mapping that this value keeps alive; the kernel touches nothing else.
        let moved = unsafe parts.withUnsafeBufferPointer {
            unsafe cl_transfer(number, writing ? 1 : 0, $0.extracting(first...).baseAddress, CUnsignedInt(vectors), offset)
        }
        return Int(try check(moved))
    }
}
