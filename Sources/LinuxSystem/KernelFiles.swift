internal import CLinux
package import SystemPackage

// What the kernel shows as small files, directories and links: sysfs(5), proc(5).
extension FileSystem {
    /// What a symbolic link says. `EINVAL`: it is none.
    package static func target(ofLink path: String) throws(Errno) -> String {
        try unsafe text(room: 4096) { text, room in
            // SAFETY: the path is NUL-terminated for the duration of the call; the shim stores at most `room` bytes.
            unsafe path.withCString { unsafe cl_read_link($0, text, room) }
        }
    }

    /// The names in a directory, sorted.
    package static func names(in directory: String) throws(Errno) -> [String] {
        let names = try unsafe text(room: 1 << 20) { names, room in
            // SAFETY: the path is NUL-terminated for the duration of the call; the shim stores at most `room` bytes.
            unsafe directory.withCString { unsafe cl_list_directory($0, names, room) }
        }
        return names.split(separator: "\0").map(String.init).sorted()
    }

    /// The first 4 KiB of a small file, without the newline at its end. Symbolic links are followed.
    package static func line(in path: String) throws(Errno) -> String {
        let bytes = try OwnedDescriptor.open(path, followingLinks: true).read(upTo: 4096)
        return String(decoding: bytes.last == UInt8(ascii: "\n") ? bytes.dropLast() : bytes[...], as: UTF8.self)
    }

    private static func text(room: Int, _ fill: (UnsafeMutablePointer<CChar>?, UInt64) -> Int64) throws(Errno) -> String {
        var bytes = [CChar](repeating: 0, count: room)
        // SAFETY: the callee stores at most `room` bytes.
        let length = try check(unsafe bytes.withUnsafeMutableBufferPointer { unsafe fill($0.baseAddress, UInt64(room)) })
        return String(decoding: bytes.prefix(Int(length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
