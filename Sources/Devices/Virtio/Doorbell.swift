package import LinuxSystem
package import SystemPackage

/// What a driver rings after putting something into a queue: an eventfd that KVM signals without leaving the kernel (KVM_IOEVENTFD).
///
/// It is this worker's own; the next one looks at every queue instead.
package final class Doorbell: Sendable {
    /// Not blocking.
    package let event: EventDescriptor

    package init() throws(Errno) { event = try EventDescriptor() }

    /// The descriptor to wait for.
    package var number: CInt { event.descriptor.number }
    /// Rings it as a driver does.
    package func ring() { event.signal() }
    /// Takes what was rung. Before looking at the queue, so that nothing rung later is missed.
    package func take() { event.take() }
}
