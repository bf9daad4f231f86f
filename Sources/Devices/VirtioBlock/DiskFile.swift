package import GuestMemory
package import LinuxSystem
package import SystemPackage

/// What a virtio disk's content is in. Everything here may block, for as long as the storage likes, and is called on several threads.
package protocol Disk: AnyObject, Sendable {
    /// Bytes, a multiple of 512.
    var size: Int64 { get }
    /// Bytes in the smallest unit that can be read or written: a power of two, at least 512.
    var blockSize: Int { get }
    var isReadOnly: Bool { get }

    /// Fills the list from `offset` on.
    func read(into list: GuestVector, at offset: Int64) throws(Errno)
    /// Writes the list from `offset` on.
    func write(from list: GuestVector, at offset: Int64) throws(Errno)
    /// Waits until everything written so far is on stable storage.
    func flush() throws(Errno)
    /// A hint that the content of a range is no longer needed.
    func discard(_ range: Range<Int64>) throws(Errno)
    /// Makes a range read as zeros; `mayUnmap` allows to give its room back.
    func writeZeroes(_ range: Range<Int64>, mayUnmap: Bool) throws(Errno)
}

/// A disk in a regular file (raw) or on a block device.
package final class DiskFile: Disk {
    private let file: SharedDescriptor
    package let size: Int64
    package let blockSize: Int
    package let isReadOnly: Bool

    /// - Parameter file: from custody, with its locks; the same open file description in every worker. What is neither a regular file
    ///   nor a block device throws `ENOTBLK`.
    package init(_ file: SharedDescriptor, isReadOnly: Bool) throws(Errno) {
        guard try file.descriptor.storageKind() != nil else { throw Errno.notBlockDevice }
        self.file = file
        blockSize = try file.descriptor.logicalBlockSize()
        size = try file.descriptor.capacity() & ~511
        self.isReadOnly = isReadOnly
    }

    package func read(into list: GuestVector, at offset: Int64) throws(Errno) { try list.read(from: file.descriptor, at: offset) }
    package func write(from list: GuestVector, at offset: Int64) throws(Errno) { try list.write(to: file.descriptor, at: offset) }
    package func flush() throws(Errno) { try file.descriptor.synchronizeData() }

    package func discard(_ range: Range<Int64>) throws(Errno) {
        // A hint: storage that cannot do it keeps what it has.
        do { try file.descriptor.punchHole(at: range.lowerBound, count: range.length) } catch { if !error.isUnsupported { throw error } }
    }

    package func writeZeroes(_ range: Range<Int64>, mayUnmap: Bool) throws(Errno) {
        do {
            if mayUnmap {
                try file.descriptor.punchHole(at: range.lowerBound, count: range.length)
            } else {
                try file.descriptor.zeroRange(at: range.lowerBound, count: range.length)
            }
        } catch {
            if !error.isUnsupported { throw error }
            try file.descriptor.writeZeroes(at: range.lowerBound, count: range.length)
        }
    }
}

extension Range<Int64> {
    fileprivate var length: Int64 { upperBound - lowerBound }
}

extension Errno {
    /// fallocate(2) says so where a file system or device cannot do it.
    fileprivate var isUnsupported: Bool { self == .notSupportedOnSocket || self == .notSupported || self == .invalidArgument }
}
