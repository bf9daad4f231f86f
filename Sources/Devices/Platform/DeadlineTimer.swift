internal import LinuxSystem
package import SystemPackage

/// What calls a device back at a time it names.
package protocol DeadlineTimer: AnyObject, Sendable {
    /// Sets when; nil for never. Replaces what was set before. May be called on any thread, with a device's lock held; never blocks.
    func set(_ deadline: Int64?)
}

/// A timer of the kernel (timerfd_create(2)) that a ``DeviceThread`` watches.
package final class HostTimer: DeadlineTimer {
    private let timer: TimerDescriptor

    package init() throws(Errno) { timer = try TimerDescriptor() }

    package func set(_ deadline: Int64?) {
        // Cannot fail with these arguments (timerfd_settime(2)).
        if let deadline { try? timer.arm(at: deadline) } else { try? timer.disarm() }
    }

    /// Descriptor to watch.
    package var number: CInt { timer.descriptor.number }

    /// Takes the expiry, so that the descriptor is no longer readable.
    package func acknowledge() { timer.take() }
}
