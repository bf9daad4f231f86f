internal import CLinux
package import SystemPackage

/// What an open file is, and what tells it from others of this host: two nodes of one block device are the same.
package struct FileIdentity: Sendable, Hashable {
    package enum Kind: Sendable, Hashable { case regular, block, other }
    package let kind: Kind
    private let major: UInt64
    private let minor: UInt64

    fileprivate init(_ identity: cl_file_identity) {
        kind =
            switch identity.kind {
            case CL_FILE_REGULAR: .regular
            case CL_FILE_BLOCK: .block
            default: .other
            }
        major = identity.major_part
        minor = identity.minor_part
    }
}

/// Which file it is and when it changed last: equal for two looks between which nobody changed it, if the last change was a while ago at the first.
package struct FileStamp: Sendable, Hashable {
    private let identity: FileIdentity
    private let size: Int64
    private let modified: Int64
    /// Of content or attributes, nanoseconds since 1970. Nobody can set it.
    package let changed: Int64

    fileprivate init(_ identity: FileIdentity, _ stamp: cl_file_stamp) {
        self.identity = identity
        size = stamp.size
        modified = stamp.modified
        changed = stamp.changed
    }
}

/// A lock that could not be had.
package enum LockRefusal: Error, Sendable, Equatable {
    /// Another process holds one; `nil`: another open file does.
    case held(by: Int32?)
    case system(Errno)
}

extension OwnedDescriptor {
    /// What this shows. Works on descriptors that were opened for their path only.
    package borrowing func identity() throws(Errno) -> FileIdentity {
        var identity = cl_file_identity()
        // SAFETY: the shim fills one structure.
        try check(unsafe cl_file_identity(number, &identity))
        return FileIdentity(identity)
    }

    /// Which file this is and when it changed last (fstat(2)).
    package borrowing func stamp() throws(Errno) -> FileStamp {
        var stamp = cl_file_stamp()
        // SAFETY: the shim fills one structure.
        try check(unsafe cl_file_stamp(number, &stamp))
        return FileStamp(try identity(), stamp)
    }

    /// Opens what is `path` below `directory`, and nothing that is not below it (openat2, `RESOLVE_BENEATH`). `path` is relative.
    /// Symbolic links are refused unless `followingLinks` says otherwise; even then they lead nowhere else.
    package static func open(
        _ path: String, beneath directory: borrowing OwnedDescriptor, _ mode: OpenMode, followingLinks: Bool = false
    ) throws(Errno) -> OwnedDescriptor {
        let resolve = UInt64(CL_RESOLVE_NO_MAGICLINKS | CL_RESOLVE_BENEATH) | (followingLinks ? 0 : UInt64(CL_RESOLVE_NO_SYMLINKS))
        // SAFETY: the path is NUL-terminated for the duration of the call.
        let result = unsafe path.withCString { unsafe cl_openat2(directory.number, $0, mode.flags, 0, resolve) }
        return try OwnedDescriptor(checking: result)
    }

    /// Locks the whole file for this open file description, for writing or for reading, without waiting (`F_OFD_SETLK`, fcntl(2)).
    ///
    /// The lock lives as long as the description: duplicates and descriptors sent to others hold the same one.
    package borrowing func lock(forWriting: Bool) throws(LockRefusal) {
        var holder: CInt = -1
        // SAFETY: the shim stores one integer.
        let result = unsafe cl_lock_file(number, forWriting ? 1 : 0, &holder)
        if result == -Errno.wouldBlock.rawValue { throw .held(by: holder > 0 ? holder : nil) }
        if result < 0 { throw .system(Errno(rawValue: -result)) }
    }

    /// Whether a lock of somebody else would keep this from being locked for writing.
    package borrowing func isLockedByOthers() throws(Errno) -> Bool { try check(cl_is_locked_by_others(number)) == 1 }
}

/// Tap interfaces (Linux, Documentation/networking/tuntap.rst).
package enum TapInterface {
    /// Whether there is an interface of that name in this network namespace.
    package static func exists(_ name: String) -> Bool { FileSystem.exists("/sys/class/net/\(name)") }

    /// One queue of the tap `name`, non-blocking, with a virtio header of 12 bytes before each frame.
    ///
    /// A tap of one queue is taken by one descriptor at a time: `EBUSY`. `EINVAL`: made with several queues and asked for one, or the other
    /// way round. `EPERM`: it belongs to another user.
    package static func attach(_ name: String, multiqueue: Bool) throws(Errno) -> OwnedDescriptor {
        let queue = try OwnedDescriptor.open("/dev/net/tun", .readWriteNow)
        // SAFETY: the name is NUL-terminated for the duration of the call.
        try check(unsafe name.withCString { unsafe cl_tap_open(queue.number, $0, multiqueue ? 1 : 0) })
        return queue
    }
}

extension UnixSocket {
    /// Up to `count` bytes that are there, which stay there. Empty when the peer will send nothing more; `EAGAIN` when nothing is there now.
    package static func peek(_ descriptor: borrowing OwnedDescriptor, upTo count: Int) throws(Errno) -> [UInt8] {
        var length: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            // SAFETY: the kernel writes at most `count` bytes into the uninitialised buffer.
            length = unsafe cl_peek(descriptor.number, buffer.baseAddress, UInt64(count))
            used = Int(Swift.max(0, length))
        }
        try check(length)
        return bytes
    }
}

extension FileSystem {
    /// Removes a socket's name; anything else under that name is left alone.
    package static func removeSocket(_ path: String) {
        // SAFETY: the path is NUL-terminated for the duration of the call.
        _ = unsafe path.withCString { unsafe cl_remove_socket($0) }
    }
}
