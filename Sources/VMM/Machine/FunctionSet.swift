internal import Checkpoint
internal import Devices
internal import GuestMemory
internal import Handover
internal import KVM
internal import LinuxSystem
internal import SystemPackage
internal import Wire

/// Bus 0 and the devices on it. Device i of the machine is function 00:(i + 1).0, and instance i + 1 of its sections.
final class FunctionSet: Sendable {
    static let sections =
        [PCIBusState.section, PCIFunctionState.section, VirtioState.section, PassthroughState.section] + DeviceSpecification.backEndSections

    let bus: PCIBus
    /// The devices that are passed through.
    let passedThrough: [PassedThrough]
    private let bridge = HostBridge()
    private let specifications: [DeviceSpecification]
    private let functions: [MachineFunction]

    init(
        _ specifications: [DeviceSpecification], _ lent: LentBackings, vm: VirtualMachine, memory: GuestMemory, machine: String
    ) throws(VMMError) {
        guard specifications.count <= DeviceSpecification.limit else { throw VMMError("a machine has at most \(DeviceSpecification.limit) devices") }
        let messages = KernelMessages(vm)
        let doorbells = KernelDoorbells(vm)
        let shared = try PassedThrough.Shared(vm, specifications, lent)
        var functions: [MachineFunction] = []
        var passedThrough: [PassedThrough] = []
        for (index, specification) in specifications.enumerated() {
            if case .passthrough(let device) = specification {
                let made = try PassedThrough(device, index: index, lent, shared)
                passedThrough.append(made)
                functions.append(.passedThrough(made.function))
                continue
            }
            let device = try specification.makeBackEnd(index, lent)
            let function = try doing("making device \(index)") { () throws(Errno) in
                try VirtioPCIFunction(
                    device, name: String(machine.prefix(7)) + "/d\(index)", memory: memory, messages: messages, doorbells: doorbells,
                    log: { writeToStandardError("baton-vmm: \($0)") })
            }
            functions.append(.virtio(function))
        }
        self.specifications = specifications
        self.functions = functions
        self.passedThrough = passedThrough
        bus = PCIBus([bridge] + functions.map(\.pci))
    }

    /// What answers guest-physical addresses.
    var windows: [MMIOWindow] {
        [MMIOWindow(bus, size: PCIBus.configurationSize, at: AddressMap.configuration.lowerBound)] + bus.all.flatMap(\.windows)
    }

    /// What of all configuration spaces never changes.
    var fixedConfiguration: [UInt8] { bus.all.flatMap(\.fixedConfiguration) }

    /// Brings devices into the state of power-on and puts BARs where firmware would.
    ///
    /// - Parameter window64: addresses for 64-bit BARs above RAM, if the processor's reach them.
    func powerOn(window64: Range<UInt64>?) {
        for device in passedThrough { device.function.powerOn() }
        bus.placeBars(in: AddressMap.window32, high: window64)
    }

    /// Where the BARs of each function are now; 0 for nowhere.
    var placements: [[UInt64]] { functions.map(\.placements) }

    /// Where the interrupts of each function lead now.
    var messages: [[VectorMessage]] { functions.map(\.messages) }

    /// Puts BARs where they were in the worker before, and has interrupts lead where they led, so that nothing is registered in a blackout.
    func anticipate(_ placements: [[UInt64]], _ messages: [[VectorMessage]]) {
        for (index, function) in functions.enumerated() {
            function.anticipate(index < placements.count ? placements[index] : [], index < messages.count ? messages[index] : [])
        }
    }

    func start() throws(VMMError) {
        for (index, function) in functions.enumerated() {
            try doing("starting device \(index)") { () throws(Errno) in try function.start() }
        }
    }

    /// Brings all devices to rest: disks first, which can take long; those that are passed through last, whose interrupts the guest misses from
    /// then on. Names the first that does not come to rest in time; then resume.
    func quiesce(until deadline: Int64) throws(VMMError) {
        let began = SystemClock.monotonic()
        for round in DeviceSpecification.Rest.allCases {
            let chosen = zip(functions, specifications).enumerated().filter { $0.element.1.rest == round }
            for (_, (function, _)) in chosen { function.hold() }
            for (index, (function, specification)) in chosen where !function.drain(until: deadline) {
                let waited = max(0, deadline - began) / 1_000_000
                throw VMMError("device \(index), \(specification.description), does not come to rest within \(waited) ms")
            }
        }
    }

    /// The vCPUs have stopped.
    func stopInterrupts() { for device in passedThrough { device.function.stop() } }

    func resumeInterrupts() { for device in passedThrough { device.function.resume() } }

    func resume() { for function in functions { function.resume() } }

    func finish() { for function in functions { function.finish() } }

    /// Writes the sections of bus, functions and back ends.
    func save(to writer: inout CheckpointWriter, versions: SectionVersions) {
        bus.state.save(to: &writer, versions: versions)
        bridge.endpoint.state.save(to: &writer, versions: versions)
        for (index, function) in functions.enumerated() { function.save(to: &writer, versions: versions, instance: UInt32(index + 1)) }
    }

    /// Reads all of them or throws; the result restores them, and cannot fail.
    func decode(_ reader: CheckpointReader) throws(CheckpointError) -> @Sendable () -> Void {
        let busState = try PCIBusState(from: reader)
        let bridgeState = try PCIFunctionState(from: reader)
        if !bridge.endpoint.accepts(bridgeState) { throw .otherShape(PCIFunctionState.section.name, 0) }
        var restorations: [@Sendable () -> Void] = []
        for (index, function) in functions.enumerated() { restorations.append(try function.decode(reader, instance: UInt32(index + 1))) }
        return { [bus, bridge, restorations] in
            bus.restore(busState)
            bridge.endpoint.restore(bridgeState)
            for restore in restorations { restore() }
        }
    }
}

extension CheckpointError {
    static func otherShape(_ section: String, _ instance: UInt32) -> CheckpointError {
        .content(SectionKey(section, instance), .invalid(offset: 0, field: "the shape of a PCI function", value: 0))
    }
}

extension DeviceSpecification {
    /// When a device is brought to rest, before others.
    fileprivate enum Rest: CaseIterable { case disks, others, passedThrough }

    fileprivate var rest: Rest {
        switch self {
        case .disk: .disks
        case .network, .console, .entropy: .others
        case .passthrough: .passedThrough
        }
    }
}
