internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import Wire

/// Builds machines: one to be powered on, or the same again from a blueprint.
struct MachineBuilder: Sendable {
    let lent: LentResources
    let failpoints: Failpoints

    /// A machine at power-on: its CPUID and MSRs are chosen here, for good.
    func build(_ specification: StartSpecification) throws(VMMError) -> Machine {
        try check(specification)
        guard let machineID = MachineID(bytes: specification.machineID) else { throw VMMError("a machine's id has 16 bytes") }
        let count = Int(specification.vcpus)
        let parts = try MachineParts(
            lent, name: specification.name, vcpus: count, memory: Int(specification.memory), pageSize: Int(specification.pageSize),
            devices: specification.devices)
        let supported = try doing("asking which CPUID is supported") { () throws(Errno) in try parts.system.system.supportedCPUID() }
        let policy = CPUIDPolicy(supported: supported, vcpus: count, tscKHz: parts.tscKHz)
        let tables = (0..<count).map { policy.table(for: $0) }
        try setCPUID(tables, parts.vcpus)
        let plan = try probeMSRs(parts)
        for vcpu in parts.vcpus { MSRPlan.setAsFirmwareWould(vcpu) }
        let machine = try Machine(parts, blueprint: Blueprint(specification, machineID: machineID, cpuid: tables, msrs: plan))
        machine.devices.functions.powerOn(window64: ACPITables.window64(machine.blueprint))
        try doing("emptying guest memory") { () throws(Errno) in
            try machine.memory.empty()  // a machine that was reset has its old content in it
            if specification.prefault { try machine.memory.prefault() }
        }
        try machine.mapForDMA(lent.memory)
        return machine
    }

    /// The machine of a blueprint, beside the one that runs: touches nothing that both share.
    func build(_ blueprint: Blueprint) throws(VMMError) -> Machine {
        if blueprint.model != MachineModel.name { throw VMMError("model \(blueprint.model) is not implemented here; \(MachineModel.name) is") }
        var blueprint = blueprint
        for index in blueprint.cpuid.indices { failpoints.cpuid(&blueprint.cpuid[index]) }
        try failpoints.reached(.map)
        let parts = try MachineParts(
            lent, name: blueprint.name, vcpus: blueprint.vcpus, memory: blueprint.memory, pageSize: blueprint.pageSize,
            devices: blueprint.devices)
        try failpoints.reached(.build)
        try setCPUID(blueprint.cpuid, parts.vcpus)
        for vcpu in parts.vcpus { try blueprint.msrs.apply(to: vcpu) }
        parts.devices.functions.anticipate(blueprint.placements, blueprint.messages)
        return try Machine(parts, blueprint: blueprint)
    }

    /// Maps every page of RAM that exists into this process, and into the VM where KVM can; holes stay holes. Bytes populated.
    @discardableResult
    func populate(_ machine: Machine) throws(VMMError) -> Int {
        try failpoints.reached(.populate)
        failpoints.memory(machine.memory)
        return try doing("populating guest memory") { () throws(Errno) in
            let vcpu = machine.vm.value(of: .preFaultMemory) > 0 ? machine.firstVCPU : nil
            let extents = try lent.memory.descriptor.dataExtents()
            machine.existingPage.withLock { $0 = extents.first.flatMap { machine.memory.layout.addresses(of: $0).first?.lowerBound } }
            return try Population(machine.memory, extents, through: vcpu).run()
        }
    }

    private func check(_ specification: StartSpecification) throws(VMMError) {
        if specification.model != MachineModel.name {
            throw VMMError("model \(specification.model) is not implemented here; \(MachineModel.name) is")
        }
        guard (1...MachineModel.maximumVCPUs).contains(Int(specification.vcpus)) else {
            throw VMMError("\(specification.vcpus) vCPUs: a machine has 1 to \(MachineModel.maximumVCPUs)")
        }
        guard specification.memory > 0, specification.memory % 4096 == 0, specification.memory <= MachineModel.maximumMemory else {
            throw VMMError("\(specification.memory) bytes of RAM: it must be whole pages and at most \(MachineModel.maximumMemory) bytes")
        }
    }

    private func setCPUID(_ tables: [CPUIDTable], _ vcpus: [VCPU]) throws(VMMError) {
        for (table, vcpu) in zip(tables, vcpus) {
            try doing("setting CPUID of vCPU \(vcpu.index)") { () throws(Errno) in
                try vcpu.setCPUID(table)
                try vcpu.setMachineCheckBanks(MSRPlan.machineCheckBanks)
            }
        }
    }

    private func probeMSRs(_ parts: MachineParts) throws(VMMError) -> MSRPlan {
        let system = parts.system
        return try doing("listing MSRs") { () throws(Errno) in
            MSRPlan(
                probing: parts.vcpus[0], listed: try system.system.msrIndices(),
                features: parts.vm.value(of: .getMSRFeatures) > 0 ? try system.system.featureMSRIndices() : [])
        }
    }
}
