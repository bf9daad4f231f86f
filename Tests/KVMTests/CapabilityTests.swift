import KVM
import LinuxSystem
import Testing

enum Host {
    static let hasKVM = (try? OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true)) != nil
}

@Suite(.enabled(if: Host.hasKVM, "there is no /dev/kvm here"))
struct CapabilityTests {
    private func system() throws -> KVMSystem {
        try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
    }

    @Test func kvmOffersWhatAWorkerNeeds() throws {
        let system = try system()
        for capability in [Capability.irqchip, .userMemory, .immediateExit, .adjustClock] { #expect(system.value(of: capability) > 0) }
        #expect(try !system.msrIndices().isEmpty)
        #expect(try system.supportedCPUID()[0, 0] != nil)
    }
}
