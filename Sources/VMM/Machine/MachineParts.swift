internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import SystemPackage

/// What a worker was lent, as far as building a machine needs it.
struct LentResources: Sendable {
    let kvm: SharedDescriptor
    let memory: SharedDescriptor
    let console: SharedDescriptor?
    let kernel: SharedDescriptor?
    let initialRAMDisk: SharedDescriptor?
    let backings: LentBackings
}

/// VM, RAM, memory slots, devices and vCPUs of a machine, made but not yet shown anything of the guest's.
struct MachineParts {
    let system: KVMSystemBox
    let vm: VirtualMachine
    let memory: GuestMemory
    let devices: DeviceSet
    let vcpus: [VCPU]
    let tscKHz: UInt32
    let dmaSpaces: [DMASpace]

    /// Makes them in the order KVM wants: capabilities, slots, interrupt controllers, vCPUs. Slots come before what KVM puts on a bus of the VM: since Linux
    /// 6.18 it lets go of the bus's old table in its own time, and a slot that is added meanwhile waits for that, 10 ms.
    init(
        _ lent: LentResources, name: String, vcpus count: Int, memory size: Int, pageSize: Int, devices specifications: [DeviceSpecification]
    ) throws(VMMError) {
        let system = try KVMSystemBox(lent.kvm)
        memory = try Self.map(lent.memory, size, pageSize)
        let vm = try doing("creating the VM") { () throws(Errno) in try system.system.createVirtualMachine() }
        try doing("setting up the VM") { () throws(Errno) in
            for capability in [Capability.exceptionPayload, .tripleFaultEvent] where vm.value(of: capability) > 0 { try vm.enable(capability, 1) }
            try vm.setScratchPages(taskState: MachineModel.taskStatePages, identityMap: MachineModel.identityMapPage)
        }
        for (number, region) in memory.layout.regions.enumerated() {
            let slot = MemorySlot(
                number: UInt32(number), guestAddress: region.address, size: UInt64(region.length), address: memory.hostAddress(of: region))
            try doing("adding RAM at \(hexadecimal(region.address))") { () throws(Errno) in try vm.setMemorySlot(slot) }
        }
        try doing("creating the interrupt controllers") { () throws(Errno) in
            try vm.createInterruptControllers()
            try vm.setRoutes(MachineModel.interruptRoutes)
        }
        var made: [VCPU] = []
        for index in 0..<count {
            made.append(try doing("creating vCPU \(index)") { () throws(Errno) in try vm.createVCPU(index) })
        }
        guard let first = made.first else { throw VMMError("a machine has at least one vCPU") }
        tscKHz = try doing("reading the TSC frequency") { () throws(Errno) in try first.tscKHz() }
        dmaSpaces = try DMASpace.all(of: specifications.compactMap { if case .passthrough(let device) = $0 { device } else { nil } }, lent.backings)
        devices = try DeviceSet(specifications, lent, vm: vm, memory: memory, machine: name)
        self.vm = vm
        self.system = system
        vcpus = made
    }

    private static func map(_ descriptor: SharedDescriptor, _ size: Int, _ pageSize: Int) throws(VMMError) -> GuestMemory {
        let actual = try doing("looking at guest memory") { () throws(Errno) in try descriptor.descriptor.size() }
        if actual != size { throw VMMError("guest memory has \(actual) bytes, the machine has \(size)") }
        let mapping = try doing("mapping guest memory") { () throws(Errno) in
            try SharedMapping(of: descriptor.descriptor, length: size, alignment: max(pageSize, 2 << 20))
        }
        return GuestMemory(GuestMemoryLayout(size: size), mapping: mapping)
    }
}

/// `/dev/kvm` as a reference, with a descriptor of its own.
final class KVMSystemBox: Sendable {
    let system: KVMSystem

    init(_ descriptor: SharedDescriptor) throws(VMMError) {
        system = try doing("using the lent /dev/kvm") { () throws(Errno) in try KVMSystem(try descriptor.descriptor.duplicate()) }
    }
}
