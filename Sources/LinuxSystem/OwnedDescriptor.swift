internal import CLinux
package import SystemPackage

/// A file descriptor with exactly one owner. Dropping it closes it.
///
/// Closing a number that is not open is a defect of ours that could close someone else's descriptor, so it traps.
package struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number, for one call; whoever keeps it outlives the owner.
    package let number: CInt

    /// Takes over an open descriptor.
    package init(owning number: CInt) {
        precondition(number >= 0, "a descriptor is not negative")
        self.number = number
    }

    /// Takes over the descriptor that a kernel shim returned, or throws the `-errno` it returned instead.
    package init(checking result: CInt) throws(Errno) {
        self.init(owning: try check(result))
    }

    deinit {
        precondition(cl_close(number) != -Errno.badFileDescriptor.rawValue, "descriptor \(number) was closed behind its owner")
    }

    /// Another descriptor of the same open file description (`F_DUPFD_CLOEXEC`).
    package borrowing func duplicate() throws(Errno) -> OwnedDescriptor {
        try OwnedDescriptor(checking: cl_duplicate(number))
    }

    /// Ends ownership without closing.
    package consuming func relinquish() -> CInt {
        let number = self.number
        discard self
        return number
    }

    /// Whether both show the same file (device and inode).
    package borrowing func isSameFile(as other: borrowing OwnedDescriptor) -> Bool {
        cl_same_file(number, other.number) == 1
    }

    package var isRegularFile: Bool { cl_is_regular_file(number) == 1 }

    /// Length of the file in bytes.
    package borrowing func size() throws(Errno) -> Int {
        Int(try check(cl_size(number)))
    }
}

/// A descriptor that several places hold; the last one closes it. What keyed collections and message attachments hold.
package final class SharedDescriptor: Sendable {
    package let descriptor: OwnedDescriptor

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// The number, for one call.
    package var number: CInt { descriptor.number }
}
