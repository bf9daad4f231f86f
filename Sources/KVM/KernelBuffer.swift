internal import CLinux

/// Memory the kernel reads and fills for one ioctl: fixed room, 8-byte aligned, zeroed, allocated once.
@safe
package final class KernelBuffer: @unchecked Sendable {
    // Owned by one thread at a time: a vCPU's buffers by its thread while it saves or restores, by the machine otherwise.
    private let memory: UnsafeMutableRawPointer
    /// The room in bytes.
    package let count: Int

    package init(count: Int) {
        precondition(count > 0, "a buffer has room")
        self.count = count
        unsafe memory = .allocate(byteCount: count, alignment: 8)
        _ = unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }

    deinit { unsafe memory.deallocate() }

    /// The memory, for one ioctl.
    @unsafe var pointer: UnsafeMutableRawPointer { unsafe memory }

    private func checkBounds(_ offset: Int, _ length: Int) {
        precondition(offset >= 0 && length >= 0 && length <= count - offset, "access outside the buffer")
    }

    // SAFETY (all loads and stores): bounds are checked; loads are unaligned-safe.
    package func load8(at offset: Int) -> UInt8 {
        checkBounds(offset, 1)
        return unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt8.self)
    }
    package func load16(at offset: Int) -> UInt16 {
        checkBounds(offset, 2)
        return unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
    }
    package func load32(at offset: Int) -> UInt32 {
        checkBounds(offset, 4)
        return unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
    }
    package func load64(at offset: Int) -> UInt64 {
        checkBounds(offset, 8)
        return unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }
    package func store(_ value: UInt8, at offset: Int) {
        checkBounds(offset, 1)
        unsafe memory.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }
    package func store(_ value: UInt16, at offset: Int) {
        checkBounds(offset, 2)
        unsafe memory.storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
    }
    package func store(_ value: UInt32, at offset: Int) {
        checkBounds(offset, 4)
        unsafe memory.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
    }
    package func store(_ value: UInt64, at offset: Int) {
        checkBounds(offset, 8)
        unsafe memory.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }

    /// Copies the first `length` bytes out.
    package func bytes(_ length: Int) -> [UInt8] {
        checkBounds(0, length)
        return unsafe [UInt8](UnsafeRawBufferPointer(start: memory, count: length))
    }

    /// Copies the first `length` bytes to the end of `bytes`.
    package func append(_ length: Int, to bytes: inout [UInt8]) {
        checkBounds(0, length)
        unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: memory, count: length))
    }

    /// How much of the first `length` bytes there is before nothing but zeros, in whole words of eight.
    package func contentLength(within length: Int) -> Int {
        checkBounds(0, length)
        var end = length & ~7
        if end < length, (end..<length).contains(where: { load8(at: $0) != 0 }) { return length }
        // SAFETY: bounds were checked.
        while end > 0, unsafe memory.load(fromByteOffset: end &- 8, as: UInt64.self) == 0 { end &-= 8 }
        return end
    }

    /// Whether ``assign(_:)`` of these bytes would change nothing.
    package func holds(_ bytes: [UInt8]) -> Bool {
        checkBounds(0, bytes.count)
        // SAFETY: bounds were checked.
        let isSame = unsafe bytes.withUnsafeBytes {
            if let source = $0.baseAddress { unsafe cl_is_same(memory, source, $0.count) != 0 } else { true }
        }
        let words = min(count, (bytes.count &+ 7) & ~7)
        return isSame && (bytes.count..<words).allSatisfy { load8(at: $0) == 0 } && contentLength(within: count) <= words
    }

    /// Whether both have the same room and hold the same.
    package func isSame(as other: KernelBuffer) -> Bool {
        // SAFETY: both have that many bytes.
        unsafe count == other.count && cl_is_same(memory, other.memory, count) != 0
    }

    /// Copies bytes in from the start and zeroes the rest.
    package func assign(_ bytes: [UInt8]) {
        checkBounds(0, bytes.count)
        // SAFETY: bounds were checked.
        unsafe bytes.withUnsafeBytes {
            if let source = $0.baseAddress { unsafe memory.copyMemory(from: source, byteCount: $0.count) }
        }
        _ = unsafe (memory + bytes.count).initializeMemory(as: UInt8.self, repeating: 0, count: count - bytes.count)
    }
}
