internal import CLinux
package import SystemPackage

/// What to wait for on a descriptor, and what came.
package struct Readiness: OptionSet, Sendable {
    package let rawValue: Int16
    package init(rawValue: Int16) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 1)
    package static let writable = Readiness(rawValue: 4)
    package static let failed = Readiness(rawValue: 8)
    package static let hungUp = Readiness(rawValue: 16)
}

/// poll(2) over a list of descriptors.
package struct Poll {
    private var entries: [cl_poll] = []

    package init() {}
    package init(_ descriptors: [(CInt, Readiness)]) {
        for (number, interest) in descriptors { add(number, interest) }
    }

    package var count: Int { entries.count }
    package mutating func removeAll() { entries.removeAll(keepingCapacity: true) }
    package mutating func add(_ number: CInt, _ interest: Readiness = .readable) {
        entries.append(cl_poll(fd: number, events: interest.rawValue, revents: 0))
    }

    /// Waits until one is ready or `timeout` passes (`nil`: for ever). The number of ready entries; a signal counts as none.
    @discardableResult
    package mutating func wait(timeout: Duration?) throws(Errno) -> Int {
        // SAFETY: the shim reads and writes exactly the entries.
        let result = unsafe entries.withUnsafeMutableBufferPointer {
            unsafe cl_poll($0.baseAddress, CUnsignedInt($0.count), timeout.map { Swift.max(0, $0.nanoseconds) } ?? -1)
        }
        if result == -Errno.interrupted.rawValue { return 0 }
        return Int(try check(result))
    }

    /// What came for the entry added at `index`.
    package func result(at index: Int) -> Readiness { Readiness(rawValue: entries[index].revents) }

    /// Waits for one descriptor to become ready.
    package static func one(_ number: CInt, _ interest: Readiness = .readable, timeout: Duration?) throws(Errno) -> Bool {
        var poll = Poll([(number, interest)])
        return try poll.wait(timeout: timeout) > 0
    }
}

/// Descriptors that are waited for as one, for input (epoll(7)): waiting costs the same however many there are.
///
/// Each is removed before it is closed. Safe from any thread; what is added while another thread waits counts at once.
package final class WatchedDescriptors: Sendable {
    private let epoll: OwnedDescriptor

    package init() throws(Errno) { epoll = try OwnedDescriptor(checking: cl_epoll()) }

    /// Readable when one of them is, or has hung up.
    package var number: CInt { epoll.number }

    package func add(_ number: CInt) throws(Errno) { try check(cl_epoll_add(epoll.number, number, 0)) }
    package func remove(_ number: CInt) { _ = cl_epoll_remove(epoll.number, number) }

    /// Some of those that are ready now; the others' turn is the next time.
    package func ready() -> Set<CInt> {
        var numbers = [CInt](repeating: -1, count: 64)
        // SAFETY: the shim writes no more than it is told there is room for.
        let count = unsafe numbers.withUnsafeMutableBufferPointer { unsafe cl_epoll_ready(epoll.number, $0.baseAddress, CInt($0.count)) }
        return Set(numbers.prefix(Int(max(0, count))))
    }
}

extension Duration {
    /// Whole nanoseconds, saturating.
    package var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? (seconds < 0 ? .min : .max) : product &+ attoseconds / 1_000_000_000
    }
}

/// Points on the kernel's clocks, in nanoseconds.
package enum SystemClock {
    /// CLOCK_MONOTONIC: comparable between processes of one host, slewed by NTP.
    package static func monotonic() -> Int64 { cl_now(CL_CLOCK_MONOTONIC) }
    /// The time on ``monotonic()`` when `duration` will have passed; as late as there is for what would be later.
    package static func deadline(after duration: Duration) -> Int64 {
        let (deadline, overflow) = monotonic().addingReportingOverflow(duration.nanoseconds)
        return overflow ? .max : deadline
    }
    /// CLOCK_MONOTONIC_RAW: not slewed.
    package static func raw() -> Int64 { cl_now(CL_CLOCK_MONOTONIC_RAW) }
    /// CLOCK_REALTIME.
    package static func wall() -> Int64 { cl_now(CL_CLOCK_REALTIME) }
    /// The CPU's time stamp counter.
    package static func tsc() -> UInt64 { cl_tsc() }
    package static func sleep(_ duration: Duration) { cl_sleep(Swift.max(0, duration.nanoseconds)) }
}

/// A counter in the kernel that wakes whoever polls it (eventfd(2)).
package struct EventDescriptor: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init(nonBlocking: Bool = true) throws(Errno) {
        descriptor = try OwnedDescriptor(checking: cl_eventfd(0, nonBlocking ? 0o4000 : 0))
    }

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// A new one that several places hold. Non-blocking.
    package static func shared() throws(Errno) -> SharedDescriptor {
        SharedDescriptor(try OwnedDescriptor(checking: cl_eventfd(0, 0o4000)))
    }

    package borrowing func signal() {
        var one: UInt64 = 1
        // SAFETY: eight bytes of a local.
        _ = unsafe cl_write(descriptor.number, &one, 8)
    }

    /// The count since last taken, 0 when there is none.
    @discardableResult
    package borrowing func take() -> UInt64 {
        var count: UInt64 = 0
        // SAFETY: eight bytes of a local.
        return unsafe cl_read(descriptor.number, &count, 8) == 8 ? count : 0
    }
}

/// A timer that makes its descriptor readable (timerfd_create(2), CLOCK_MONOTONIC).
package struct TimerDescriptor: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init() throws(Errno) {
        descriptor = try OwnedDescriptor(checking: cl_timerfd(CL_CLOCK_MONOTONIC))
    }

    /// Fires at `first` (CLOCK_MONOTONIC nanoseconds) and then every `interval` nanoseconds; 0 means once.
    package borrowing func arm(at first: Int64, every interval: Int64 = 0) throws(Errno) {
        try check(cl_timerfd_set(descriptor.number, Swift.max(1, first), interval, 1))
    }

    package borrowing func disarm() throws(Errno) {
        try check(cl_timerfd_set(descriptor.number, 0, 0, 0))
    }

    /// How often it has fired since last asked.
    @discardableResult
    package borrowing func take() -> UInt64 {
        var count: UInt64 = 0
        // SAFETY: eight bytes of a local.
        return unsafe cl_read(descriptor.number, &count, 8) == 8 ? count : 0
    }
}

/// Signals as a descriptor. Blocks them in the calling thread, so create it before starting others.
package struct SignalDescriptor: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init(_ signals: [ProcessSignal]) throws(Errno) {
        let numbers = signals.map(\.rawValue)
        // SAFETY: the shim reads exactly the array.
        let result = unsafe numbers.withUnsafeBufferPointer { unsafe cl_signalfd($0.baseAddress, CUnsignedInt($0.count)) }
        descriptor = try OwnedDescriptor(checking: result)
    }

    /// The next waiting signal, if any.
    package borrowing func take() -> ProcessSignal? {
        ProcessSignal(rawValue: cl_signalfd_take(descriptor.number))
    }
}

extension SystemClock {
    /// CPUs this process may use.
    package static var processorCount: Int { Int(max(1, cl_processor_count())) }
}
