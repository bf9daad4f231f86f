internal import Devices
internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// A device of the host that a machine has: the function its guest sees, and what is lent for it.
final class PassedThrough: Sendable {
    /// What such devices of one VM share.
    struct Shared {
        let vm: VirtualMachine
        let routes: KernelRoutes
        let slots = KernelSlots()
        /// The container whose devices reach one another; nil with fewer than two. An iommufd of ours has no such mappings: they could not be taken over.
        let peers: VFIOContainer?

        init(_ vm: VirtualMachine, _ specifications: [DeviceSpecification], _ lent: LentBackings) throws(VMMError) {
            self.vm = vm
            routes = KernelRoutes(vm)
            let count = specifications.count { if case .passthrough(let device) = $0 { device.backend == .container } else { false } }
            peers = count < 2 ? nil : VFIOContainer(adopting: try lent.find(.vfioContainer))
        }
    }

    let specification: VFIOSpecification
    let function: PassthroughFunction
    let host: KernelPassthrough
    /// What KVM is told of: the group of a device in a container, the device otherwise.
    let association: SharedDescriptor

    /// Adopts what is lent, configured as it is. The device is looked at and not changed.
    init(_ specification: VFIOSpecification, index: Int, _ lent: LentBackings, _ shared: Shared) throws(VMMError) {
        self.specification = specification
        let device = VFIODevice(adopting: try lent.find(.vfioDevice(index)))
        association = specification.backend == .container ? try lent.find(.vfioGroup(device: index)) : device.file
        var events: [SharedDescriptor] = []
        for vector in 0..<Int(specification.vectors) { events.append(try lent.find(.interruptEvent(device: index, vector: vector))) }
        let unmask = try? lent.find(.unmaskEvent(device: index))
        let live = try doing("looking at device \(index), \(specification.address)") { () throws(Errno) in
            try LiveDevice(device, address: specification.address, events: events, unmask: unmask)
        }
        let pin = live.interruptPin
        host = KernelPassthrough(
            shared.vm, live, firstGSI: try shared.routes.reserve(events.count),
            lineGSI: AddressMap.interruptGSI(device: index + 1, pin: max(0, pin - 1)),
            routes: shared.routes, slots: shared.slots, peers: specification.backend == .container ? shared.peers : nil)
        function = PassthroughFunction(live, host: host)
    }
}
