internal import Checkpoint
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Wire

/// The devices of `baton-1` and the buses that lead to them.
final class DeviceSet: Sendable {
    static let sections: [Handover.SectionRange] = []

    struct Decoded: Sendable {}

    private let console: SharedDescriptor?

    init(vm: VirtualMachine, console: SharedDescriptor?) throws(VMMError) {
        self.console = console
    }

    func setEndingHandler(_ handler: @escaping @Sendable (GuestEnding) -> Void) {}

    func handle(_ access: PortAccess, of vcpu: VCPU) {
        for index in 0..<access.count {
            if access.isWrite {
                let value = vcpu.data(of: access, at: index)
                if access.port == 0x3F8, let console {
                    try? console.descriptor.writeAll([UInt8(truncatingIfNeeded: value)])
                }
            } else {
                vcpu.complete(access, at: index, with: access.port == 0x3FD ? 0x60 : 0xFF)
            }
        }
    }

    func handle(_ access: MemoryAccess, of vcpu: VCPU) {
        if !access.isWrite { vcpu.complete(access, with: .max) }
    }

    func requestPowerOff() {}
    func settle() {}
    func unsettle() {}
    func quiesce() {}
    func resume() {}
    func save(into writer: inout CheckpointWriter, versions: PromisedVersions) {}
    static func decode(_ reader: CheckpointReader) throws(CheckpointError) -> Decoded { Decoded() }
    func restore(_ saved: Decoded) throws(VMMError) {}
}
