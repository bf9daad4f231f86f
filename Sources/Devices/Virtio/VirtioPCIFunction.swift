package import GuestMemory
internal import LinuxSystem
internal import Synchronization
package import SystemPackage

/// Where doorbells are hung up: KVM (KVM_IOEVENTFD), or a recorder in tests.
package protocol DoorbellRegistry: AnyObject, Sendable {
    /// A guest's write of any width to the address rings the bell, and is not seen as an access any more. `false` when that is not
    /// possible; then the access comes as before. Takes long: not in a blackout.
    func attach(_ doorbell: Doorbell, at address: UInt64) -> Bool
    /// Ends that.
    func detach(_ doorbell: Doorbell, at address: UInt64)
}

/// A virtio device as a PCI function (virtio 1.2 §4.1): modern only, interrupts by MSI-X only, one BAR.
package final class VirtioPCIFunction: PCIFunction {
    package let device: any VirtioDevice
    let registers: VirtioRegisters
    private let endpoint: PCIEndpoint
    private let window: VirtioWindow
    private let memory: GuestMemory
    private let name: String
    /// Offset of the capability through which the BAR can be reached without mapping it.
    private let accessCapability: Int

    /// Where things are in BAR 0.
    enum Layout {
        static let common: UInt32 = 0x0000
        static let commonSize: UInt32 = 0x38
        static let interruptStatus: UInt32 = 0x1000
        static let configuration: UInt32 = 0x2000
        static let notification: UInt32 = 0x3000
        static let notificationStride: UInt32 = 4
        static let messages: UInt32 = 0x4000
        static let pending: UInt32 = 0x5000
        static let page: UInt32 = 0x1000
        static let size: UInt64 = 0x8000
        /// As many vectors as have room in their page.
        static let maximumVectors = 256
    }

    /// - Parameters:
    ///   - name: in thread names and log lines: machine and device number, short.
    ///   - log: takes a line about a device that failed.
    package init(
        _ device: any VirtioDevice, name: String, memory: GuestMemory, messages sink: any MessageSink, doorbells: any DoorbellRegistry,
        log: @escaping @Sendable (String) -> Void
    ) throws(Errno) {
        let count = device.queueSizes.count
        let table = MSIXTable(count: min(count + 1, Layout.maximumVectors), sink: sink)
        let kind = device.kind
        let interrupts = VirtioInterrupts(table) { log("\(name): virtio \(kind) needs a reset: \($0)") }
        var queues: [Virtqueue] = []
        for (index, size) in device.queueSizes.enumerated() {
            queues.append(Virtqueue(index: index, maximumSize: size, memory: memory, doorbell: try Doorbell(), transport: interrupts))
        }
        self.device = device
        self.name = name
        self.memory = memory
        registers = VirtioRegisters(device, queues: queues, interrupts: interrupts)
        window = VirtioWindow(registers, table)
        let bells = HungDoorbells(queues.map(\.doorbell), doorbells)
        var access = 0
        endpoint = PCIEndpoint(
            PCIIdentity(virtio: kind), regions: [PCIEndpoint.Region(PCIBar(index: 0, size: Layout.size), MMIOWindow(window, size: Layout.size))],
            messages: (table, 0, Layout.messages, Layout.pending),
            capabilities: { access = $0.addVirtioCapabilities(queues: count) },
            moved: { _, address in bells.hang(at: address.map { $0 + UInt64(Layout.notification) }) })
        accessCapability = access
    }

    package var windows: [MMIOWindow] { endpoint.windows }
    package var fixedConfiguration: [UInt8] { endpoint.fixedConfiguration + window.fixed }
    package func placeBars(with allocator: inout PCIBarAllocator) { endpoint.placeBars(with: &allocator) }

    package func readConfiguration(at offset: Int, size: Int) -> UInt32 {
        guard offset == accessCapability + 16, let access = windowAccess else { return endpoint.readConfiguration(at: offset, size: size) }
        return UInt32(truncatingIfNeeded: window.read(at: access.offset, size: access.size))
    }

    package func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) {
        endpoint.writeConfiguration(value, at: offset, size: size)
        guard offset == accessCapability + 16, let access = windowAccess else { return }
        window.write(UInt64(value), at: access.offset, size: access.size)
    }

    /// What the driver has put into the access capability (§4.1.4.9), if it makes sense.
    private var windowAccess: (offset: Int, size: Int)? {
        let bar = endpoint.readConfiguration(at: accessCapability + 4, size: 1)
        let offset = endpoint.readConfiguration(at: accessCapability + 8, size: 4)
        let size = endpoint.readConfiguration(at: accessCapability + 12, size: 4)
        guard bar == 0, size == 1 || size == 2 || size == 4, offset % size == 0, UInt64(offset) < Layout.size else { return nil }
        return (Int(offset), Int(size))
    }

    // Its life, as ``VirtioDevice`` says.

    package func start() throws(Errno) {
        try device.start(VirtioConnection(queues: registers.queues, transport: registers.interrupts, memory: memory, name: name))
    }
    package func hold() { device.hold() }
    package func drain(until deadline: Int64) -> Bool { device.drain(until: deadline) }
    package func resume() { device.resume() }
    package func finish() {
        device.hold()
        device.finish()
    }

    /// Whether it has failed since its last reset.
    package var hasFailed: Bool { registers.interrupts.hasFailed }

    /// The state of function and transport; the back end's is its own.
    package var state: VirtioFunctionState { VirtioFunctionState(function: endpoint.state, transport: registers.state) }

    /// Whether a state can be this device's: the same registers, vectors and queues.
    package func accepts(_ state: VirtioFunctionState) -> Bool {
        endpoint.accepts(state.function) && state.transport.queues.count == registers.queues.count
            && zip(registers.queues, state.transport.queues).allSatisfy { (1...$0.maximumSize).contains($1.size) }
    }

    /// Takes over a state of function and transport that is accepted, while held. The back end's comes afterwards.
    package func restore(_ state: VirtioFunctionState) {
        endpoint.restore(state.function)
        registers.restore(state.transport)
    }

    /// Where its BAR is now, for hanging up the doorbells of the next worker beforehand; nil for nowhere.
    package var placement: UInt64? { endpoint.windows[0].address }

    /// Puts the BAR where the previous worker's was, before anything of its state is known.
    package func anticipate(_ placement: UInt64) { endpoint.anticipate(PCIBar(index: 0, size: Layout.size), at: placement) }
}

/// The stored state of ``VirtioPCIFunction``, without its back end's.
package struct VirtioFunctionState: Sendable, Equatable {
    package var function: PCIFunctionState
    package var transport: VirtioState

    package init(function: PCIFunctionState, transport: VirtioState) {
        self.function = function
        self.transport = transport
    }
}

/// The doorbells of a device, hung up where its notification structure is.
private final class HungDoorbells: Sendable {
    private let bells: [Doorbell]
    private let registry: any DoorbellRegistry
    private let hung = Mutex<[(bell: Doorbell, address: UInt64)]>([])

    init(_ bells: [Doorbell], _ registry: any DoorbellRegistry) {
        self.bells = bells
        self.registry = registry
    }

    func hang(at address: UInt64?) {
        hung.withLock { hung in
            for (bell, address) in hung { registry.detach(bell, at: address) }
            hung.removeAll()
            guard let address else { return }
            for (index, bell) in bells.enumerated() {
                let place = address + UInt64(index) * UInt64(VirtioPCIFunction.Layout.notificationStride)
                if registry.attach(bell, at: place) { hung.append((bell, place)) }
            }
        }
    }
}
