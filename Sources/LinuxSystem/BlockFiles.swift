internal import CLinux
package import SystemPackage

/// What a disk's content is in.
package enum StorageKind: Sendable {
    case regularFile, blockDevice
}

/// Regular files and block devices as storage (fallocate(2), fdatasync(2)).
extension OwnedDescriptor {
    /// What this is; nil for anything that is no storage.
    package borrowing func storageKind() throws(Errno) -> StorageKind? {
        switch try check(cl_file_kind(number)) {
        case CL_FILE_REGULAR: .regularFile
        case CL_FILE_BLOCK: .blockDevice
        default: nil
        }
    }

    /// Bytes in the file or device.
    package borrowing func capacity() throws(Errno) -> Int64 { try check(cl_capacity(number)) }

    /// Bytes in the smallest unit that a block device reads and writes; 512 for a file.
    package borrowing func logicalBlockSize() throws(Errno) -> Int { Int(try check(cl_block_size(number))) }

    /// Waits until everything written is on stable storage (fdatasync(2)).
    package borrowing func synchronizeData() throws(Errno) { try check(cl_data_sync(number)) }

    /// Gives the room of a range back; it reads as zeros (`FALLOC_FL_PUNCH_HOLE`).
    package borrowing func punchHole(at offset: Int64, count: Int64) throws(Errno) { try check(cl_punch_hole(number, offset, count)) }

    /// Makes a range read as zeros and keeps its room (`FALLOC_FL_ZERO_RANGE`).
    package borrowing func zeroRange(at offset: Int64, count: Int64) throws(Errno) { try check(cl_zero_range(number, offset, count)) }

    /// Writes zeros.
    package borrowing func writeZeroes(at offset: Int64, count: Int64) throws(Errno) {
        var done: Int64 = 0
        while done < count { done += try check(cl_write_zeroes(number, offset + done, count - done)) }
    }
}

/// A set of descriptors on which several threads wait (epoll(7)).
package struct SharedPoll: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    package init() throws(Errno) { descriptor = try OwnedDescriptor(checking: cl_epoll()) }

    /// Watches a descriptor for input: each arrival wakes one thread, whether or not what came before was taken.
    package borrowing func add(_ number: CInt) throws(Errno) { try check(cl_epoll_add(descriptor.number, number, 1)) }

    /// Watches a descriptor for input: while there is some, no thread waits.
    package borrowing func addForAll(_ number: CInt) throws(Errno) { try check(cl_epoll_add(descriptor.number, number, 0)) }

    /// Waits for an event. May return without one.
    package borrowing func wait() { _ = cl_epoll_wait(descriptor.number) }
}
