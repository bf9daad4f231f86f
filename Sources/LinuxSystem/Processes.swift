internal import CLinux
package import SystemPackage

/// How a process ended.
package enum ProcessExit: Sendable, Equatable, CustomStringConvertible {
    case exited(Int32)
    case killed(signal: Int32)
    /// Not our child, so its status is not ours to read.
    case unknown

    package var description: String {
        switch self {
        case .exited(127): "could not be executed (status 127)"
        case .exited(let status): "exited with status \(status)"
        case .killed(let signal): "was killed by \(Self.name(of: signal))"
        case .unknown: "ended"
        }
    }

    private static func name(of signal: Int32) -> String {
        switch signal {
        case 4: "SIGILL"
        case 5: "SIGTRAP"
        case 6: "SIGABRT"
        case 7: "SIGBUS"
        case 9: "SIGKILL"
        case 11: "SIGSEGV"
        case 15: "SIGTERM"
        case 31: "SIGSYS"
        default: "signal \(signal)"
        }
    }
}

/// Signals sent by number in this project.
package enum ProcessSignal: Int32, Sendable {
    case interrupt = 2
    case quit = 3
    case kill = 9
    case user1 = 10
    case pipe = 13
    case terminate = 15
    case child = 17
    case `continue` = 18
    case stop = 19
}

/// A process, held by pidfd: it cannot be confused with a later one of the same number.
package struct ProcessDescriptor: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    package consuming func takeDescriptor() -> OwnedDescriptor { descriptor }

    package init(opening pid: Int32) throws(Errno) {
        descriptor = try OwnedDescriptor(checking: cl_pidfd_open(pid))
    }

    package borrowing func send(_ signal: ProcessSignal) throws(Errno) {
        try check(cl_pidfd_signal(descriptor.number, signal.rawValue))
    }

    /// Whether the process has ended (its pidfd is readable).
    package borrowing func hasEnded() -> Bool {
        (try? Poll.one(descriptor.number, timeout: .zero)) ?? false
    }

    /// Waits for the end, at most `timeout`; whether it came. Reaps nothing.
    package borrowing func waitForEnd(timeout: Duration?) -> Bool {
        (try? Poll.one(descriptor.number, timeout: timeout)) ?? false
    }

    /// Reaps an ended child. Somebody else's child, or one reaped already, ended `.unknown`; `nil` while it runs.
    package borrowing func reap() -> ProcessExit? {
        var exit = cl_exit()
        // SAFETY: the shim fills one structure.
        let result = unsafe cl_wait_pidfd(descriptor.number, 0, &exit)
        if result == 0 { return nil }
        if result < 0 { return hasEnded() ? .unknown : nil }
        return exit.code == 1 ? .exited(exit.status) : .killed(signal: exit.status)
    }
}

/// A process just started.
package struct SpawnedProcess: ~Copyable {
    package let pid: Int32
    package let process: ProcessDescriptor

    package consuming func takeProcess() -> ProcessDescriptor { process }
}

/// What a new process is given. Everything not named here it does not have.
package struct SpawnRequest: Sendable {
    package var arguments: [String]
    package var environment: [String] = []
    /// `descriptors[i]` becomes number `i` in the child.
    package var descriptors: [SharedDescriptor]
    package var uid: UInt32?
    package var gid: UInt32?
    /// RLIMIT_MEMLOCK in bytes.
    package var memoryLock: Int?
    package var noNewPrivileges = true
    /// A process group of its own without a terminal, whose signals do not reach it. Not a session: where sched_autogroup is on, each is a group of
    /// the scheduler's, and the two workers of a handover would compete as such (docs/decisions/0047).
    package var ownGroup = true
    package var keepsCapabilities = false

    package init(arguments: [String], descriptors: [SharedDescriptor]) {
        self.arguments = arguments
        self.descriptors = descriptors
    }

    /// Before this process has many descriptors: makes it cheap to start others when it has (docs/decisions/0051).
    package static func prepare() throws(Errno) { try check(cl_prepare_to_spawn()) }

    /// Executes `image` (clone3 with a pidfd, execveat). A failed exec shows as exit status 127.
    package func spawn(executing image: borrowing OwnedDescriptor) throws(Errno) -> SpawnedProcess {
        let numbers = descriptors.map(\.number)
        var pidfd: CInt = -1
        // SAFETY: all strings and arrays live until the call returns, and it returns when the child, which reads them, has executed or ended.
        let pid = unsafe withCStrings(arguments) { arguments in
            unsafe withCStrings(environment) { environment in
                unsafe numbers.withUnsafeBufferPointer { numbers in
                    var request = unsafe cl_spawn()
                    unsafe request.executable = image.number
                    unsafe request.arguments = arguments
                    unsafe request.environment = environment
                    unsafe request.descriptors = numbers.baseAddress
                    unsafe request.descriptor_count = CInt(numbers.count)
                    unsafe request.uid = uid.map(Int64.init) ?? -1
                    unsafe request.gid = gid.map(Int64.init) ?? -1
                    unsafe request.memlock = memoryLock.map(Int64.init) ?? -1
                    unsafe request.no_new_privileges = noNewPrivileges ? 1 : 0
                    unsafe request.own_group = ownGroup ? 1 : 0
                    unsafe request.keep_capabilities = keepsCapabilities ? 1 : 0
                    return unsafe cl_spawn(&request, &pidfd)
                }
            }
        }
        try check(pid)
        return SpawnedProcess(pid: Int32(pid), process: ProcessDescriptor(OwnedDescriptor(owning: pidfd)))
    }
}

/// Calls `body` with a NULL-terminated array of C strings that live until it returns.
private func withCStrings<Result>(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>?) -> Result) -> Result {
    var bytes: [CChar] = []
    var starts: [Int] = []
    for string in strings {
        starts.append(bytes.count)
        bytes += string.utf8.map { CChar(bitPattern: $0) } + [0]
    }
    // SAFETY: the pointers refer into `bytes`, which does not move inside the closure.
    return unsafe bytes.withUnsafeMutableBufferPointer { storage in
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe []
        for start in starts { unsafe pointers.append(storage.baseAddress?.advanced(by: start)) }
        unsafe pointers.append(nil)
        return unsafe pointers.withUnsafeBufferPointer { unsafe body($0.baseAddress) }
    }
}

package enum CurrentProcess {
    /// Orphaned descendants become our children, to be reaped by ``reapAny()``.
    package static func becomeSubreaper() throws(Errno) { try check(cl_set_subreaper()) }
    /// Reaps every dead child but `except`, whose end somebody waits for.
    package static func reapOrphans(except: Int32) {
        var exit = cl_exit()
        // SAFETY: the shim fills one structure.
        while unsafe cl_reap_any(except, &exit) == 1 {}
    }
    package static func setNoNewPrivileges() throws(Errno) { try check(cl_set_no_new_privileges()) }
    /// Raises RLIMIT_NOFILE as far as allowed, at most to `count`.
    package static func raiseOpenFileLimit(to count: UInt64) throws(Errno) { try check(cl_set_limit_nofile(count)) }
    package static var memoryLockLimit: UInt64 { cl_limit_memlock() }
    package static var openFileLimit: UInt64 { cl_limit_nofile() }
    /// Gives large blocks back to the kernel as soon as they are freed, whichever thread used them. For processes that live for long.
    package static func returnLargeBlocks() { cl_return_large_blocks() }

    /// Keeps so many bytes of freed memory at the heap's end, and has all blocks that are smaller there: what was needed once is there when it is needed
    /// again, and nobody waits for another thread that asks the kernel for it.
    package static func keepFreedMemory(_ length: Int) { cl_keep_freed_memory(length) }
    /// Ends the process at once, without running exit handlers.
    package static func exitNow(_ status: Int32) { cl_exit_now(status) }
    package static func ignore(_ signal: ProcessSignal) { _ = cl_ignore_signal(signal.rawValue) }
}

/// The environment as this process got it.
package enum ProcessEnvironment {
    /// Variables that programs we start need, as `NAME=value`: nothing else is passed on.
    package static var passedOn: [String] {
        ["PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR", "BATON_IN_LAB"].compactMap { name in
            self[name].map { "\(name)=\($0)" }
        }
    }

    package static subscript(name: String) -> String? {
        // SAFETY: getenv's result is read before anything else runs; nothing in this project calls setenv.
        unsafe name.withCString { unsafe cl_environment($0).map { unsafe String(cString: $0) } }
    }
}

extension CurrentProcess {
    /// The effective user's id.
    package static var userID: UInt32 { cl_user_id() }
    package static var id: Int32 { cl_process_id() }
}
