internal import Checkpoint
internal import Devices
internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import SystemPackage
internal import Wire

/// Bus 0 and the virtio devices on it. Device i of the machine is function 00:(i + 1).0, and instance i + 1 of its sections.
final class VirtioSet: Sendable {
    static let sections = [PCIBusState.section, PCIFunctionState.section, VirtioState.section] + DeviceSpecification.backEndSections

    let bus: PCIBus
    private let bridge = HostBridge()
    private let specifications: [DeviceSpecification]
    private let functions: [VirtioPCIFunction]

    init(
        _ specifications: [DeviceSpecification], _ lent: LentBackings, vm: VirtualMachine, memory: GuestMemory, machine: String
    ) throws(VMMError) {
        guard specifications.count <= DeviceSpecification.limit else { throw VMMError("a machine has at most \(DeviceSpecification.limit) devices") }
        let messages = KernelMessages(vm)
        let doorbells = KernelDoorbells(vm)
        var functions: [VirtioPCIFunction] = []
        for (index, specification) in specifications.enumerated() {
            let device = try specification.makeBackEnd(index, lent)
            let function = try doing("making device \(index)") { () throws(Errno) in
                try VirtioPCIFunction(
                    device, name: String(machine.prefix(7)) + "/d\(index)", memory: memory, messages: messages, doorbells: doorbells,
                    log: { writeToStandardError("baton-vmm: \($0)") })
            }
            functions.append(function)
        }
        self.specifications = specifications
        self.functions = functions
        bus = PCIBus([bridge] + functions)
    }

    /// What answers guest-physical addresses.
    var windows: [MMIOWindow] {
        [MMIOWindow(bus, size: PCIBus.configurationSize, at: AddressMap.configuration.lowerBound)] + bus.all.flatMap(\.windows)
    }

    /// What of all configuration spaces never changes.
    var fixedConfiguration: [UInt8] { bus.all.flatMap(\.fixedConfiguration) }

    /// Puts BARs where firmware would, at power-on.
    func placeBars() { bus.placeBars(in: AddressMap.window32) }

    /// Where BARs are now; 0 for nowhere.
    var placements: [UInt64] { functions.map { $0.placement ?? 0 } }

    /// Puts BARs where they were in the worker before, so that nothing is registered in a blackout.
    func anticipate(_ placements: [UInt64]) {
        for (function, placement) in zip(functions, placements) where placement != 0 { function.anticipate(placement) }
    }

    func start() throws(VMMError) {
        for (index, function) in functions.enumerated() {
            try doing("starting device \(index)") { () throws(Errno) in try function.start() }
        }
    }

    /// Brings all devices to rest, disks first: those can take long. Names the first that does not come to rest in time; then resume.
    func quiesce(until deadline: Int64) throws(VMMError) {
        let began = SystemClock.monotonic()
        for isDisk in [true, false] {
            let chosen = zip(functions, specifications).enumerated().filter { $0.element.1.isDisk == isDisk }
            for (_, (function, _)) in chosen { function.hold() }
            for (index, (function, specification)) in chosen where !function.drain(until: deadline) {
                let waited = max(0, deadline - began) / 1_000_000
                throw VMMError("device \(index), \(specification.description), does not come to rest within \(waited) ms")
            }
        }
    }

    func resume() { for function in functions { function.resume() } }

    func finish() { for function in functions { function.finish() } }

    /// Writes the sections of bus, functions and back ends.
    func save(to writer: inout CheckpointWriter, versions: SectionVersions) {
        bus.state.save(to: &writer, versions: versions)
        bridge.endpoint.state.save(to: &writer, versions: versions)
        for (index, function) in functions.enumerated() {
            let instance = UInt32(index + 1)
            let state = function.state
            state.function.save(to: &writer, versions: versions, instance: instance)
            state.transport.save(to: &writer, versions: versions, instance: instance)
            function.device.save(to: &writer, versions: versions, instance: instance)
        }
    }

    /// Reads all of them or throws; the result restores them, and cannot fail.
    func decode(_ reader: CheckpointReader) throws(CheckpointError) -> @Sendable () -> Void {
        let busState = try PCIBusState(from: reader)
        let bridgeState = try PCIFunctionState(from: reader)
        if !bridge.endpoint.accepts(bridgeState) { throw Self.otherShape(0) }
        var restorations: [@Sendable () -> Void] = []
        for (index, function) in functions.enumerated() {
            let instance = UInt32(index + 1)
            let state = VirtioFunctionState(
                function: try PCIFunctionState(from: reader, instance: instance), transport: try VirtioState(from: reader, instance: instance))
            if !function.accepts(state) { throw Self.otherShape(instance) }
            let backEnd = try function.device.decode(reader, instance: instance)
            restorations.append {
                function.restore(state)
                backEnd()
            }
        }
        return { [bus, bridge, restorations] in
            bus.restore(busState)
            bridge.endpoint.restore(bridgeState)
            for restore in restorations { restore() }
        }
    }
}

extension VirtioSet {
    private static func otherShape(_ instance: UInt32) -> CheckpointError {
        .content(SectionKey(PCIFunctionState.section.name, instance), .invalid(offset: 0, field: "the shape of a PCI function", value: 0))
    }
}

extension DeviceSpecification {
    fileprivate var isDisk: Bool { if case .disk = self { true } else { false } }
}

extension VirtioDevice {
    fileprivate func save(to writer: inout CheckpointWriter, versions: SectionVersions, instance: UInt32) {
        state().save(to: &writer, versions: versions, instance: instance)
    }

    fileprivate func decode(_ reader: CheckpointReader, instance: UInt32) throws(CheckpointError) -> @Sendable () -> Void {
        let state = try State(from: reader, instance: instance)
        return { self.restore(state) }
    }
}
