internal import CLinux
package import SystemPackage

/// A kernel thread of our own (pthread). Not a Task: it blocks, is kicked, pinned and named.
package struct SystemThread: Sendable {
    private let handle: CUnsignedLong

    private final class Body {
        let name: String
        let run: @Sendable () -> Void
        init(name: String, run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }

    /// Starts a thread. `name` shows in `/proc/PID/task/TID/comm`, cut to 15 bytes. `stack`: bytes for its stack, `nil` for the usual 8 MiB; where there are
    /// many threads, small stacks share page tables.
    package init(name: String, stack: Int? = nil, _ run: @escaping @Sendable () -> Void) throws(Errno) {
        let body = unsafe Unmanaged.passRetained(Body(name: name, run: run))
        var handle: CUnsignedLong = 0
        // SAFETY: the body is retained until the thread has taken it over.
        let result = unsafe cl_thread_start(
            { argument in
                if let argument = unsafe argument {
                    let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                    SystemThread.setName(body.name)
                    body.run()
                }
                return nil
            }, body.toOpaque(), stack ?? 0, &handle)
        if result < 0 {
            unsafe body.release()
            throw Errno(rawValue: -result)
        }
        self.handle = handle
    }

    package func join() { _ = cl_thread_join(handle) }
    package func detach() { _ = cl_thread_detach(handle) }

    /// Makes a blocking system call of that thread return EINTR, if a handler is installed.
    package func kick() { _ = cl_kick(handle) }

    /// Installs the empty kick handler for the process.
    package static func installKickHandler() throws(Errno) { try check(cl_kick_install()) }

    /// Lets kicks reach this thread, whatever it inherited.
    package static func allowKicks() { _ = cl_kick_allow() }

    package static func setName(_ name: String) {
        // SAFETY: the name is NUL-terminated for the duration of the call.
        _ = unsafe name.withCString { unsafe cl_thread_name($0) }
    }

    /// Gives the memory back that this thread's stack has taken and does not use now. For threads other than the first, before a long wait.
    package static func returnStack() { cl_stack_return() }

    /// How this thread shares a CPU with others (sched(7)).
    package enum Eagerness: CInt {
        /// SCHED_OTHER.
        case ordinary = 0
        /// SCHED_BATCH: when it wakes, nobody who runs already is interrupted for it.
        case patient = 3
        /// SCHED_IDLE: it runs only when nobody else wants the CPU.
        case background = 5
    }

    package static func setEagerness(_ eagerness: Eagerness) { _ = cl_thread_policy(eagerness.rawValue) }

    /// A thread that is `urgent` gets the CPU as soon as it wakes, before threads that are not, and gives it up again soon; its share stays what it was.
    /// Since Linux 6.12; nothing changes before that, nor for background work.
    ///
    /// - Parameters:
    ///   - turn: how long it keeps the CPU where others want it that are as urgent: what it has to do takes less, or each switch is in vain.
    ///   - thread: as ``currentID`` was there; `nil`: this one.
    package static func setUrgent(_ urgent: Bool, turn: Duration = .microseconds(100), thread: Int32? = nil) {
        _ = cl_thread_slice(thread ?? 0, urgent ? UInt64(clamping: turn.nanoseconds) : 0)
    }

    /// Pins a thread to CPUs, bit n of word n/64 for CPU n.
    ///
    /// - Parameter thread: as ``currentID`` was there; `nil`: this one.
    package static func setAffinity(_ mask: [UInt64], thread: Int32? = nil) throws(Errno) {
        // SAFETY: the shim reads exactly the array.
        try check(unsafe mask.withUnsafeBufferPointer { unsafe cl_thread_affinity(thread ?? 0, $0.baseAddress, $0.count) })
    }

    /// A mask of all CPUs that there can be; those that a thread may not have do not count.
    package static let everyCPU = [UInt64](repeating: .max, count: 1024 / 64)

    /// The CPU this thread is on, if the kernel says it.
    package static var currentCPU: UInt32? { UInt32(exactly: cl_current_cpu()) }

    /// Keeps this thread on one CPU. Returns where it was allowed to run before, for ``setAffinity(_:)``; `nil` when nothing has changed.
    package static func stay(on cpu: UInt32) -> [UInt64]? {
        var before = [UInt64](repeating: 0, count: everyCPU.count)
        // SAFETY: the shim fills at most the array.
        let words = Int(unsafe before.withUnsafeMutableBufferPointer { unsafe cl_thread_affinity_now($0.baseAddress, $0.count) })
        guard words > 0, Int(cpu) < words * 64 else { return nil }
        before.removeLast(before.count - words)
        var only = [UInt64](repeating: 0, count: Int(cpu) / 64 + 1)
        only[Int(cpu) / 64] = 1 << UInt64(cpu % 64)
        guard (try? setAffinity(only)) != nil else { return nil }
        return before
    }

    /// The kernel's id of this thread.
    package static var currentID: Int32 { cl_thread_id() }
}

/// A 32-bit word that threads of this process wait on and wake (futex(2)).
@safe
package final class Futex: @unchecked Sendable {
    private let word: UnsafeMutablePointer<UInt32>

    package init(_ value: UInt32 = 0) {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: value)
    }

    deinit { unsafe word.deallocate() }

    // SAFETY (all): the word lives as long as this object.
    package var value: UInt32 { unsafe cl_load32(word) }

    /// Stores and wakes nobody.
    package func store(_ value: UInt32) { unsafe cl_store32(word, value) }

    /// Stores and wakes every waiter.
    package func set(_ value: UInt32) {
        unsafe cl_store32(word, value)
        _ = unsafe cl_futex_wake(word, .max)
    }

    /// Wakes every waiter.
    package func wake() { _ = unsafe cl_futex_wake(word, .max) }

    /// Wakes those waiters whose mask has a bit of `mask`.
    package func wake(those mask: UInt32) { _ = unsafe cl_futex_wake_those(word, mask) }

    /// Waits while the word holds `value`, as one of those that `mask` names. May return early.
    package func wait(while value: UInt32, as mask: UInt32) { _ = unsafe cl_futex_wait_as(word, value, mask) }

    /// Looks at the word again and again, for as long as it holds `value` and at most `duration`, without giving up the CPU; whether it does not hold it any more.
    package func watch(while value: UInt32, for duration: Duration) -> Bool {
        if self.value != value { return true }
        if duration <= .zero { return false }
        let end = SystemClock.deadline(after: duration)
        repeat {
            for _ in 0..<16 {
                cl_relax()
                if self.value != value { return true }
            }
        } while SystemClock.monotonic() < end
        return false
    }

    /// Waits while the word holds `value`, with open eyes for as long as `watching` says. May return early.
    package func wait(while value: UInt32, watching: Duration) {
        if !watch(while: value, for: watching) { wait(while: value) }
    }

    /// Waits while the word holds `value`, at most `timeout` (`nil`: for ever). May return early.
    package func wait(while value: UInt32, timeout: Duration? = nil) {
        _ = unsafe cl_futex_wait(word, value, timeout?.nanoseconds ?? -1)
    }

    /// Waits until the word no longer holds `value`; `false` when `timeout` passed first.
    package func waitUntil(not value: UInt32, timeout: Duration) -> Bool {
        let end = SystemClock.deadline(after: timeout)
        while self.value == value {
            let left = end - SystemClock.monotonic()
            if left <= 0 { return false }
            wait(while: value, timeout: .nanoseconds(left))
        }
        return true
    }
}
