internal import Clibcap
internal import LinuxSystem
package import SystemPackage

/// A Linux capability that this project has a use for (capabilities(7)).
package enum Capability: Int32, Sendable, CaseIterable, CustomStringConvertible {
    /// Give a machine's files and memory to its worker's user.
    case chown = 0
    /// Signal workers that run under other users.
    case kill = 5
    /// Start workers under the machine's group.
    case setGID = 6
    /// Start workers under the machine's user.
    case setUID = 7
    /// Cut the bounding set; given up once it is cut.
    case setPCAP = 8
    /// Set workers' limits for locked memory.
    case ipcLock = 14
    /// Raise limits above our own hard limit.
    case sysResource = 24

    package var description: String {
        switch self {
        case .chown: "CAP_CHOWN"
        case .kill: "CAP_KILL"
        case .setGID: "CAP_SETGID"
        case .setUID: "CAP_SETUID"
        case .setPCAP: "CAP_SETPCAP"
        case .ipcLock: "CAP_IPC_LOCK"
        case .sysResource: "CAP_SYS_RESOURCE"
        }
    }

    /// All that `batond` keeps. docs/privileges.md says what each is for.
    package static let supervisor: [Capability] = [.chown, .kill, .setGID, .setUID, .ipcLock, .sysResource]
}

/// Cuts this process down. Credentials belong to threads: call these first thing in `main`, before any other thread exists.
package enum Privilege {
    /// Whether this process has any permitted capability to give up.
    package static var isPrivileged: Bool {
        // SAFETY: the set is freed on every path; a missing one counts as empty.
        guard let set = unsafe cap_get_proc() else { return false }
        defer { unsafe _ = cap_free(UnsafeMutableRawPointer(set)) }
        return Capability.allCases.contains { capability in
            var value = CAP_CLEAR
            unsafe cap_get_flag(set, capability.rawValue, CAP_PERMITTED, &value)
            return value == CAP_SET
        }
    }

    /// Limits what any exec from here can regain, and keeps no capability effective or permitted now.
    ///
    /// For the keeper: it needs none, and the `batond` it starts gets exactly the bounding set at exec.
    package static func keepForChildren(_ capabilities: [Capability]) throws(Errno) {
        guard isPrivileged else { return }
        try limitBoundingSet(to: capabilities + [.setPCAP])
        try setProcess([])
    }

    /// Keeps exactly `capabilities`, permitted and effective, of those this process has; cuts the bounding set to them and locks
    /// the secure bits, so that neither exec nor a change of user brings any back. Those it keeps.
    @discardableResult
    package static func confine(to capabilities: [Capability]) throws(Errno) -> [Capability] {
        guard isPrivileged else { return [] }
        let kept = capabilities.filter { isPermitted($0) }
        try limitBoundingSet(to: kept)
        // NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, KEEP_CAPS locked off (securebits.h).
        let bits: UInt32 = 0b01 | 0b10 | 0b0100 | 0b1000 | 0b10_0000 | 0b100_0000 | 0b1000_0000
        if cap_set_secbits(bits) != 0 { throw Errno.notPermitted }
        try setProcess(kept)
        return kept
    }

    private static func isPermitted(_ capability: Capability) -> Bool {
        // SAFETY: the set is freed on every path.
        guard let set = unsafe cap_get_proc() else { return false }
        defer { unsafe _ = cap_free(UnsafeMutableRawPointer(set)) }
        var value = CAP_CLEAR
        unsafe cap_get_flag(set, capability.rawValue, CAP_PERMITTED, &value)
        return value == CAP_SET
    }

    private static func limitBoundingSet(to capabilities: [Capability]) throws(Errno) {
        let kept = Set(capabilities.map(\.rawValue))
        for value in 0..<cap_max_bits() where !kept.contains(value) {
            if cap_get_bound(value) == 1, cap_drop_bound(value) != 0 { throw Errno.notPermitted }
        }
    }

    private static func setProcess(_ capabilities: [Capability]) throws(Errno) {
        // SAFETY: cap_init allocates an empty set, freed on every path.
        guard let set = unsafe cap_init() else { throw Errno.noMemory }
        defer { unsafe _ = cap_free(UnsafeMutableRawPointer(set)) }
        var values = capabilities.map(\.rawValue)
        if !values.isEmpty {
            for flag in [CAP_PERMITTED, CAP_EFFECTIVE] {
                unsafe cap_set_flag(set, flag, CInt(values.count), &values, CAP_SET)
            }
        }
        if unsafe cap_set_proc(set) != 0 { throw Errno.notPermitted }
    }
}
