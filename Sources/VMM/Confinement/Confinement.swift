internal import CLinux
internal import LinuxSystem
internal import SystemPackage

/// What a worker can still do after it has given up the rest.
package struct Confinement: Sendable, Equatable {
    /// The kernel's Landlock version in force, 0 where it has none.
    package let landlockVersion: Int

    /// Gives up, for good and for every thread, what a worker does not need: privileges by execve, the file systems, TCP, signalling
    /// others (as far as Landlock knows these), and every system call that is not on the list in `CLinux`.
    ///
    /// Called before anything is received. The process stays dumpable: whoever has its uid and its supervisor must be able to look at
    /// it and to take descriptors from it, and generations of one machine have different uids. Guest RAM is left out of core dumps
    /// instead (`GuestMemory`).
    package static func confine() throws(VMMError) -> Confinement {
        try doing("giving up new privileges") { () throws(Errno) in try CurrentProcess.setNoNewPrivileges() }
        let landlock = cl_confine_paths()
        if landlock < 0 && landlock != -Errno.notSupportedOnSocket.rawValue {
            throw VMMError("giving up the file systems (Landlock): \(Errno(rawValue: -landlock))")
        }
        try doing("giving up system calls (seccomp)") { () throws(Errno) in _ = try check(cl_confine_system_calls()) }
        return Confinement(landlockVersion: Int(max(0, landlock)))
    }
}
