package import GuestMemory
package import Handover
package import KVM

/// Where a test image may make its worker fail, delay or lie. Shipped programs pass ``none``.
package struct Failpoints: Sendable {
    /// Called as a step is reached, on the thread that takes it. May delay, end the process, or refuse by throwing.
    package var reached: @Sendable (Step) throws(VMMError) -> Void = { _ throws(VMMError) in }
    /// May change what CPUID shows the guest.
    package var cpuid: @Sendable (inout CPUIDTable) -> Void = { _ in }
    /// May change guest RAM while a machine is prepared.
    package var memory: @Sendable (GuestMemory) -> Void = { _ in }
    /// May delay the answer about health, or name a problem.
    package var health: @Sendable () -> String? = { nil }
    /// May change the generation that reports carry.
    package var generation: @Sendable (UInt32) -> UInt32 = { $0 }

    package init() {}

    package static let none = Failpoints()
}
