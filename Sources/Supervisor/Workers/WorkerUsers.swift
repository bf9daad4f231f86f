internal import LinuxSystem

/// Under which users workers run.
///
/// A privileged supervisor gives every machine two users, alternating by generation: a past generation can neither signal nor trace the
/// next, and per-user accounting never sums both. An ordinary user's supervisor runs them all as itself.
package struct WorkerUsers: Sendable {
    /// First of the users set aside; `nil`: no right to change users.
    package let base: UInt32?

    package init(base: UInt32?) { self.base = base }

    /// Most machines that get users of their own.
    package static let slots = 4096

    func uid(slot: Int, generation: UInt32) -> UInt32? {
        base.map { $0 + UInt32(slot) * 2 + generation % 2 }
    }

    /// Makes `request` start without privileges, under the user of that slot and generation.
    func restrict(_ request: inout SpawnRequest, slot: Int, generation: UInt32) {
        request.noNewPrivileges = true
        request.ownGroup = true
        request.keepsCapabilities = false
        if let uid = uid(slot: slot, generation: generation) {
            request.uid = uid
            request.gid = uid
        }
    }
}
