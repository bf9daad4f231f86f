internal import Control
internal import LinuxSystem

/// How much memory a worker may keep in place (RLIMIT_MEMLOCK, setrlimit(2)): all of its machine's, if devices reach it.
enum MemoryLock {
    /// Beside the machine's memory: small things that the kernel counts too.
    static let spare = 64 << 20

    /// What each worker of the machine needs.
    ///
    /// A container charges each process for itself. iommufd charges the user, and for a moment both workers of a handover: with users of their own that
    /// is no matter, but one user for both needs it twice.
    static func limit(_ spec: MachineSpec, host: Host) -> Int {
        let twice = host.users.base == nil && !spec.passthroughDevices.isEmpty
        return spec.memory.sizeBytes * (twice ? 2 : 1) + spare
    }

    /// Refuses a machine whose devices could not reach its memory, before anything is opened.
    ///
    /// `limit`: what this process may lock, and workers unless it can raise that.
    static func require(_ spec: MachineSpec, host: Host, limit: UInt64 = CurrentProcess.memoryLockLimit) throws(ControlError) {
        guard !spec.passthroughDevices.isEmpty, !host.raisesLimits else { return }
        let needed = Self.limit(spec, host: host)
        if limit >= UInt64(needed) { return }
        throw .refused(
            machine: spec.name,
            reasons: [
                "passed-through devices keep all of the machine's memory in place: \(needed >> 20) MiB are needed, RLIMIT_MEMLOCK allows \(limit >> 20) MiB",
                "→ raise it for baton-keep: LimitMEMLOCK= in its unit, or `ulimit -l \(needed >> 10)`",
            ])
    }
}
