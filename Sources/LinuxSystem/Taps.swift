internal import CLinux
package import SystemPackage

/// What of its work a tap may leave to whoever reads from it (linux/if_tun.h, `TUN_F_*`).
package struct TapOffloads: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Checksums that are not computed yet.
    package static let checksum = TapOffloads(rawValue: 0x01)
    /// TCP segments longer than the link takes. Only with ``checksum``.
    package static let tcp4 = TapOffloads(rawValue: 0x02)
    package static let tcp6 = TapOffloads(rawValue: 0x04)
}

/// One queue of a tap. Who has the descriptor needs no privilege for this.
extension OwnedDescriptor {
    /// For all queues of the tap.
    package borrowing func setTapOffloads(_ offloads: TapOffloads) throws(Errno) { try check(cl_tap_set_offloads(number, offloads.rawValue)) }

    /// Lets the tap give packets to this queue, or not. `EINVAL` when it is so already.
    package borrowing func attachTapQueue(_ on: Bool) throws(Errno) { try check(cl_tap_attach(number, on ? 1 : 0)) }
}
