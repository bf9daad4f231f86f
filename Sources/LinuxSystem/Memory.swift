internal import CLinux
package import SystemPackage

/// Anonymous shared memory with a descriptor (memfd_create(2)).
package struct MemoryDescriptor: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    package consuming func takeDescriptor() -> OwnedDescriptor { descriptor }

    /// memfd flags. RAM stays executable: a memfd without that right comes back write-protected from a kernel live update.
    package static let executable: UInt32 = CL_MFD_EXEC
    package static let huge2MiB: UInt32 = 4 | 21 << 26
    package static let huge1GiB: UInt32 = 4 | 30 << 26

    /// Creates `size` bytes. `flags` adds memfd flags such as `MFD_HUGETLB` with its size.
    package init(name: String, size: Int, flags: UInt32 = 0) throws(Errno) {
        // SAFETY: the name is NUL-terminated for the duration of the call.
        let number = unsafe name.withCString { unsafe cl_memfd($0, flags) }
        let created = try OwnedDescriptor(checking: number)
        try check(cl_truncate(created.number, Int64(size)))
        descriptor = created
    }

    /// Fixes the size for good (`F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL`): a peer cannot make an access fault with ftruncate.
    package borrowing func sealSize() throws(Errno) {
        try check(cl_add_seals(descriptor.number, CL_SEAL_SHRINK | CL_SEAL_GROW | CL_SEAL_SEAL))
    }

    /// Fixes size and content for good. `EBUSY` while a writable mapping exists: one that a process has on its way to execve(2), or a page the kernel has hold
    /// of, is gone soon.
    package borrowing func sealContent() throws(Errno) {
        for _ in 0..<10 {
            do throws(Errno) {
                try check(cl_add_seals(descriptor.number, CL_SEAL_SHRINK | CL_SEAL_GROW | CL_SEAL_WRITE | CL_SEAL_SEAL))
                return
            } catch { if error != .resourceBusy { throw error } }
            SystemClock.sleep(.milliseconds(10))
        }
        throw .resourceBusy
    }

    /// The F_SEAL_* bits in force.
    package borrowing func seals() throws(Errno) -> CInt {
        try check(cl_get_seals(descriptor.number))
    }

    /// An executable memfd with the bytes of `source`, size and content sealed.
    package static func sealedCopy(of source: borrowing OwnedDescriptor, name: String, limit: Int) throws(Errno) -> MemoryDescriptor {
        let size = try source.size()
        if size > limit { throw Errno.fileTooLarge }
        let copy = try MemoryDescriptor(name: name, size: 0, flags: CL_MFD_EXEC)
        var left = size
        while left > 0 {
            let moved = try check(cl_send_file(copy.descriptor.number, source.number, left))
            if moved == 0 { throw Errno.ioError }  // the file shrank while it was read
            left -= Int(moved)
        }
        try copy.sealContent()
        return copy
    }
}

extension OwnedDescriptor {
    /// Gives back every page of a memfd: it reads as zeros and has the same size.
    package borrowing func discardContent() throws(Errno) {
        try check(cl_punch_hole(number, 0, Int64(try size())))
    }
}

/// A shared mapping of a descriptor. Unmapped when dropped.
///
/// Other processes, and a guest, change the bytes at any time: they are copied in and out, never referred to.
@safe
package final class SharedMapping: @unchecked Sendable {
    // Immutable after init; what it points at is shared memory, accessed only by copies and atomic words.
    private let base: UnsafeMutableRawPointer
    package let length: Int

    /// Maps `length` bytes of `memory` from its start. `alignment` (a power of two) places the mapping for huge pages.
    package convenience init(of descriptor: borrowing OwnedDescriptor, length: Int, writable: Bool = true, alignment: Int = 0) throws(Errno) {
        try self.init(of: descriptor, offset: 0, length: length, writable: writable, alignment: alignment)
    }

    /// Maps `length` bytes of a file from `offset`, a multiple of the page size. Where a device's registers lie, for one.
    package convenience init(of descriptor: borrowing OwnedDescriptor, offset: Int64, length: Int, writable: Bool) throws(Errno) {
        try self.init(of: descriptor, offset: offset, length: length, writable: writable, alignment: 0)
    }

    private init(of descriptor: borrowing OwnedDescriptor, offset: Int64, length: Int, writable: Bool, alignment: Int) throws(Errno) {
        var address: UnsafeMutableRawPointer? = nil
        if alignment > 0 {
            // SAFETY: the shim stores one pointer.
            try check(unsafe cl_map_aligned(descriptor.number, length, alignment, &address))
        } else {
            // SAFETY: the shim stores one pointer.
            try check(unsafe cl_map(descriptor.number, offset, length, writable ? 1 : 0, &address))
        }
        guard let mapped = unsafe address else { throw Errno.noMemory }
        unsafe base = mapped
        self.length = length
    }

    deinit {
        // SAFETY: the mapping is ours and nobody can reach it any more.
        _ = unsafe cl_unmap(base, length)
    }

    /// The address in this process, for the kernel (memory slots) only.
    package var address: UInt { unsafe UInt(bitPattern: base) }

    /// The mapping's memory for kernel-facing modules. The caller keeps within `length` and treats every byte as volatile.
    @unsafe package var pointer: UnsafeMutableRawPointer { unsafe base }

    /// Copies `count` bytes out. Traps outside the mapping.
    package func copyOut(at offset: Int, count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        copyOut(at: offset, count: count, into: &bytes)
        return bytes
    }

    /// Copies `count` bytes out, in place of what `bytes` held, into the memory it has if that suffices. Traps outside the mapping.
    package func copyOut(at offset: Int, count: Int, into bytes: inout [UInt8]) {
        precondition(offset >= 0 && count >= 0 && count <= length - offset, "read outside the mapping")
        if bytes.count > count { bytes.removeLast(bytes.count - count) } else { bytes += repeatElement(0, count: count - bytes.count) }
        unsafe bytes.withUnsafeMutableBufferPointer { buffer in
            // SAFETY: bounds were checked against the mapping, and the buffer has `count` bytes.
            if let start = buffer.baseAddress { unsafe cl_copy_in(start, base + offset, count) }
        }
    }

    /// Copies bytes in. Traps outside the mapping.
    package func copyIn(_ bytes: Span<UInt8>, at offset: Int) {
        let count = bytes.count
        precondition(offset >= 0 && count <= length - offset, "write outside the mapping")
        if count == 0 { return }
        // SAFETY: bounds were checked against the mapping.
        unsafe bytes.withUnsafeBufferPointer { unsafe cl_copy_in(base + offset, $0.baseAddress, count) }
    }

    /// A 64-bit word that processes share, at an 8-byte aligned offset.
    package func word(at offset: Int) -> SharedWord {
        precondition(offset >= 0 && offset % 8 == 0 && offset + 8 <= length, "no word there")
        return unsafe SharedWord(mapping: self, address: base + offset)
    }

    /// madvise(2) over a range.
    package func advise(_ advice: CInt, at offset: Int, count: Int) throws(Errno) {
        precondition(offset >= 0 && count >= 0 && count <= length - offset, "range outside the mapping")
        // SAFETY: bounds were checked against the mapping.
        try check(unsafe cl_advise(base + offset, count, advice))
    }
}

/// One 64-bit word in shared memory, accessed atomically and sequentially consistent.
@safe
package struct SharedWord: @unchecked Sendable {
    private let mapping: SharedMapping  // keeps the address valid
    private let address: UnsafeMutableRawPointer

    fileprivate init(mapping: SharedMapping, address: UnsafeMutableRawPointer) {
        self.mapping = mapping
        unsafe self.address = unsafe address
    }

    // SAFETY (all): the mapping is alive and the address aligned.
    package func load() -> UInt64 { unsafe cl_load64(address) }
    package func store(_ value: UInt64) { unsafe cl_store64(address, value) }

    /// Wakes whoever waits for the word to change, in any process (futex(2)). Returns how many did.
    @discardableResult
    package func wake() -> Int { max(0, Int(unsafe cl_word_wake(address))) }

    /// Waits while the low 32 bits are those of `value`, at most `timeout`. May return early.
    package func wait(while value: UInt64, timeout: Duration) { _ = unsafe cl_word_wait(address, value, max(0, timeout.nanoseconds)) }

    /// Stores `desired` if the word holds `expected`; otherwise returns what it holds.
    package func exchange(expected: UInt64, desired: UInt64) -> (exchanged: Bool, found: UInt64) {
        var found = expected
        let done = unsafe cl_exchange64(address, &found, desired) == 1
        return (done, found)
    }
}
