internal import Devices
internal import KVM

/// Device interrupts as levels of the in-kernel controllers' pins.
final class KernelInterrupts: InterruptController {
    private let vm: VirtualMachine
    init(_ vm: VirtualMachine) { self.vm = vm }

    // KVM_IRQ_LINE fails only for a pin that does not exist, which would be a defect of the model.
    func setLevel(_ high: Bool, gsi: UInt32) { try? vm.setInterruptLine(gsi, high: high) }
}

/// Message-signalled interrupts, injected at once.
final class KernelMessages: MessageSink {
    private let vm: VirtualMachine
    init(_ vm: VirtualMachine) { self.vm = vm }

    // KVM_SIGNAL_MSI fails for an address that is no local APIC's: then the message goes nowhere, as on a PC.
    func send(address: UInt64, data: UInt32) { try? vm.signal(address: address, data: data) }
}

/// Doorbells that KVM rings (KVM_IOEVENTFD).
final class KernelDoorbells: DoorbellRegistry {
    private let vm: VirtualMachine
    init(_ vm: VirtualMachine) { self.vm = vm }

    // Fails when KVM has no room for more (about a thousand), or something else is at that address.
    func attach(_ doorbell: Doorbell, at address: UInt64) -> Bool {
        (try? vm.notify(doorbell.event, onWriteTo: address, length: 0)) != nil
    }

    // Fails only for one that is not there.
    func detach(_ doorbell: Doorbell, at address: UInt64) { try? vm.notify(doorbell.event, onWriteTo: address, length: 0, remove: true) }
}
