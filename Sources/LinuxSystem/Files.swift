internal import CLinux
package import SystemPackage

/// How a path is opened.
package struct OpenMode: Sendable {
    let flags: CInt
    package static let read = OpenMode(flags: 0)
    /// For reading, without waiting for anybody: opening a FIFO waits for its writer otherwise.
    package static let readNow = OpenMode(flags: 0o4000)
    package static let readWrite = OpenMode(flags: 2)
    /// For reading and writing, without waiting for anybody then or later.
    package static let readWriteNow = OpenMode(flags: 2 | 0o4000)
    /// For reading and writing, a block device only if nobody else has it for himself, as a mounted one (`O_EXCL`, open(2)).
    package static let readWriteExclusively = OpenMode(flags: 2 | 0o200)
    /// Neither for reading nor for writing: to see what is there (`O_PATH`).
    package static let path = OpenMode(flags: 0o10000000)
    /// `O_APPEND | O_CREAT`, for writing.
    package static let append = OpenMode(flags: 1 | 0o2000 | 0o100)
    /// `O_CREAT | O_TRUNC`, for writing.
    package static let replace = OpenMode(flags: 1 | 0o1000 | 0o100)
    package static let directory = OpenMode(flags: 0o200000)
}

extension OwnedDescriptor {
    /// A duplicate of standard input (0), output (1) or error (2).
    package static func duplicate(ofStandard number: CInt) throws(Errno) -> OwnedDescriptor {
        try OwnedDescriptor(checking: cl_duplicate(number))
    }

    /// Opens `path`. Symbolic links are refused in every component unless `followingLinks` says otherwise (openat2, `RESOLVE_NO_SYMLINKS`).
    package static func open(
        _ path: String, _ mode: OpenMode = .read, permissions: UInt32 = 0o640, followingLinks: Bool = false
    ) throws(Errno) -> OwnedDescriptor {
        let resolve = UInt64(CL_RESOLVE_NO_MAGICLINKS) | (followingLinks ? 0 : UInt64(CL_RESOLVE_NO_SYMLINKS))
        let creates = mode.flags & 0o100 != 0
        // SAFETY: the path is NUL-terminated for the duration of the call.
        let result = unsafe path.withCString { unsafe cl_openat2(-100, $0, mode.flags, creates ? permissions : 0, resolve) }
        return try OwnedDescriptor(checking: result)
    }

    /// Reads up to `limit` bytes from the start to the end of the file. A longer file throws `EFBIG`.
    package borrowing func readAll(limit: Int) throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let chunk = try read(upTo: Swift.min(65536, limit - bytes.count + 1))
            if chunk.isEmpty { return bytes }
            bytes += chunk
            if bytes.count > limit { throw Errno.fileTooLarge }
        }
    }

    /// Reads once; empty at the end of the file.
    package borrowing func read(upTo count: Int) throws(Errno) -> [UInt8] {
        var length: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            // SAFETY: the kernel writes at most `count` bytes into the uninitialised buffer.
            length = unsafe cl_read(number, buffer.baseAddress, count)
            used = Int(Swift.max(0, length))
        }
        try check(length)
        return bytes
    }

    /// Reads `count` bytes at `offset`; fewer at the end of the file.
    package borrowing func read(upTo count: Int, at offset: Int) throws(Errno) -> [UInt8] {
        var length: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            // SAFETY: the kernel writes at most `count` bytes into the uninitialised buffer.
            length = unsafe cl_pread(number, buffer.baseAddress, count, Int64(offset))
            used = Int(Swift.max(0, length))
        }
        try check(length)
        return bytes
    }

    /// Writes once and returns how much was taken.
    package borrowing func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
        // SAFETY: the kernel reads exactly the span.
        Int(try check(unsafe bytes.withUnsafeBufferPointer { unsafe cl_write(number, $0.baseAddress, $0.count) }))
    }

    /// Writes everything, however many calls that takes.
    package borrowing func writeAll(_ bytes: [UInt8]) throws(Errno) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let taken = try write(rest.span)
            rest = rest.dropFirst(taken)
        }
    }

    package borrowing func setNonBlocking(_ on: Bool) throws(Errno) {
        try check(cl_set_nonblocking(number, on ? 1 : 0))
    }
}

/// Writes a line to standard error, for programs that have no logger.
package func writeToStandardError(_ line: String) {
    var bytes = Array(line.utf8)
    bytes.append(10)
    // SAFETY: the kernel reads exactly the buffer. Nothing can be done about a closed standard error.
    _ = unsafe bytes.withUnsafeBufferPointer { unsafe cl_write(2, $0.baseAddress, $0.count) }
}

/// Writes bytes to standard output.
package func writeToStandardOutput(_ text: String) {
    let bytes = Array(text.utf8)
    var start = 0
    while start < bytes.count {
        // SAFETY: the kernel reads exactly the rest of the buffer.
        let taken = unsafe bytes[start...].withUnsafeBytes { unsafe cl_write(1, $0.baseAddress, $0.count) }
        if taken <= 0 { return }
        start += Int(taken)
    }
}

/// Names in the file system.
package enum FileSystem {
    /// Creates a directory and those above it; one that is there already is left as it is.
    package static func createDirectory(_ path: String, permissions: UInt32 = 0o750) throws(Errno) {
        var prefix = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            prefix += "/" + part
            // SAFETY: the path is NUL-terminated for the duration of the call.
            let result = unsafe prefix.withCString { unsafe cl_make_directory($0, permissions) }
            if result != -Errno.fileExists.rawValue { try check(result) }
        }
    }

    package static func rename(_ path: String, to other: String) throws(Errno) {
        // SAFETY: both paths are NUL-terminated for the duration of the call.
        try check(unsafe path.withCString { first in unsafe other.withCString { unsafe cl_rename(first, $0) } })
    }

    package static func remove(_ path: String) throws(Errno) {
        // SAFETY: the path is NUL-terminated for the duration of the call.
        try check(unsafe path.withCString { unsafe cl_remove($0) })
    }

    package static func exists(_ path: String) -> Bool {
        // SAFETY: the path is NUL-terminated for the duration of the call.
        unsafe path.withCString { unsafe cl_exists($0) } == 1
    }

    /// Random bytes from the kernel.
    package static func randomBytes(_ count: Int) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            // SAFETY: the shim fills the whole buffer.
            unsafe cl_random(buffer.baseAddress, count)
            used = count
        }
    }
}
