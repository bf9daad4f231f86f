internal import Devices
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage
internal import VFIO

/// What a passed-through function has of its VM: irqfds, routes and memory slots.
final class KernelPassthrough: PassthroughHost {
    private struct Slot {
        let bar: Int
        let area: Range<UInt64>
        let number: UInt32
        let mapping: SharedMapping
        /// Where it is in the guest; nil for nowhere.
        var address: UInt64?

        var size: UInt64 { area.upperBound - area.lowerBound }
    }

    private let vm: VirtualMachine
    private let device: LiveDevice
    private let firstGSI: UInt32
    private let lineGSI: UInt32
    private let routes: KernelRoutes
    private let numbers: KernelSlots
    private let slots = Mutex<[Slot]>([])
    /// Through which other devices reach this one; nil: they do not.
    private let peers: VFIOContainer?

    init(
        _ vm: VirtualMachine, _ device: LiveDevice, firstGSI: UInt32, lineGSI: UInt32, routes: KernelRoutes, slots: KernelSlots, peers: VFIOContainer?
    ) {
        self.peers = peers
        self.vm = vm
        self.device = device
        self.firstGSI = firstGSI
        self.lineGSI = lineGSI
        self.routes = routes
        numbers = slots
    }

    func place(bar: Int, areas: [Range<UInt64>], at address: UInt64?) {
        slots.withLock { slots in
            for area in areas {
                // What cannot be given directly is answered by reading and writing the device's file: slow, and right.
                do throws(Errno) {
                    guard let index = try find(bar, area, &slots, make: address != nil) else { continue }
                    if let address {
                        try vm.setMemorySlot(
                            MemorySlot(
                                number: slots[index].number, guestAddress: address + area.lowerBound, size: slots[index].size,
                                address: slots[index].mapping.address))
                    } else if slots[index].address != nil {
                        try vm.removeMemorySlot(slots[index].number)
                    }
                    slots[index].address = address.map { $0 + area.lowerBound }
                } catch {
                    device.log("placing BAR \(bar)", error)
                }
            }
        }
    }

    private func find(_ bar: Int, _ area: Range<UInt64>, _ slots: inout [Slot], make: Bool) throws(Errno) -> Int? {
        if let index = slots.firstIndex(where: { $0.bar == bar && $0.area == area }) { return index }
        guard make else { return nil }
        slots.append(Slot(bar: bar, area: area, number: numbers.next(), mapping: try device.map(bar: bar, area)))
        return slots.count - 1
    }

    func share(bar: Int, _ on: Bool) {
        guard let peers else { return }
        slots.withLock { slots in
            for slot in slots where slot.bar == bar {
                guard let address = slot.address else { continue }
                do throws(Errno) {
                    if on {
                        try peers.map(address: slot.mapping.address, iova: address, size: slot.size)
                    } else {
                        try peers.unmap(iova: address, size: slot.size)
                    }
                } catch {
                    device.log("letting other devices reach BAR \(bar)", error)
                }
            }
        }
    }

    /// What other devices may reach of this one, if they may at all.
    var shared: [PeerMapping] {
        peers == nil
            ? [] : slots.withLock { $0.compactMap { slot in slot.address.map { PeerMapping(address: $0, mapping: slot.mapping, size: slot.size) } } }
    }

    func route(_ messages: [VectorMessage]) {
        do throws(Errno) {
            try routes.set(
                messages.map { .messageSignalled(gsi: firstGSI + UInt32($0.vector), address: $0.message.address, data: $0.message.data) })
        } catch {
            device.log("leading its interrupts to a processor", error)
        }
    }

    func attach(_ vector: Int) -> Bool {
        guard vector < device.events.count else { return false }
        return tried("attaching interrupt \(vector)") { () throws(Errno) in
            try vm.attach(device.events[vector].descriptor, to: firstGSI + UInt32(vector))
        }
    }

    func detach(_ vector: Int) {
        _ = tried("detaching interrupt \(vector)") { () throws(Errno) in
            try vm.detach(device.events[vector].descriptor, from: firstGSI + UInt32(vector))
        }
    }

    func attachLine() -> Bool {
        guard let event = device.events.first, let unmask = device.unmask else { return false }
        return tried("attaching its interrupt line") { () throws(Errno) in
            try vm.attach(event.descriptor, to: lineGSI, resampling: unmask.descriptor)
        }
    }

    func detachLine() {
        guard let event = device.events.first else { return }
        _ = tried("detaching its interrupt line") { () throws(Errno) in try vm.detach(event.descriptor, from: lineGSI) }
    }

    private func tried(_ what: @autoclosure () -> String, _ body: () throws(Errno) -> Void) -> Bool {
        do throws(Errno) {
            try body()
            return true
        } catch {
            device.log(what(), error)
            return false
        }
    }

    var isLineInService: Bool {
        let chip = KernelBuffer(count: VirtualMachine.interruptChipSize)
        guard lineGSI < 24, (try? vm.read(.ioapic, into: chip)) != nil else { return false }
        return chip.load64(at: Self.redirections + 8 * Int(lineGSI)) >> 14 & 1 == 1
    }

    /// Where the redirection table begins in `struct kvm_irqchip` (Linux, arch/x86/include/uapi/asm/kvm.h).
    private static let redirections = 32

    func isWaiting(_ vector: Int) -> Bool {
        guard vector < device.events.count else { return false }
        return (try? Poll.one(device.events[vector].number, timeout: .zero)) == true
    }

    func forget(_ vector: Int) {
        if isWaiting(vector) { _ = try? device.events[vector].descriptor.read(upTo: 8) }
    }
}

/// A stretch of a BAR that other devices may reach, at the guest's address, by a mapping of this process.
struct PeerMapping {
    let address: UInt64
    let mapping: SharedMapping
    let size: UInt64
}

/// The VM's interrupt routes: those of the model, and messages behind them (KVM_SET_GSI_ROUTING takes all at once).
final class KernelRoutes: Sendable {
    private struct Table {
        var messages: [UInt32: InterruptRoute] = [:]
        var next = KernelRoutes.first
    }

    /// The first Global System Interrupt that no pin has.
    private static let first: UInt32 = 24
    /// KVM_MAX_IRQ_ROUTES: GSIs are below it, and so many routes there are at most (Linux, include/linux/kvm_host.h).
    private static let end: UInt32 = 4096 - 40

    private let vm: VirtualMachine
    private let table = Mutex(Table())

    init(_ vm: VirtualMachine) { self.vm = vm }

    /// The first of `count` numbers for messages.
    func reserve(_ count: Int) throws(VMMError) -> UInt32 {
        let first = table.withLock { table -> UInt32? in
            guard count >= 0, UInt64(table.next) + UInt64(count) <= UInt64(Self.end) else { return nil }
            defer { table.next += UInt32(count) }
            return table.next
        }
        guard let first else { throw VMMError("the devices that are passed through have more interrupt vectors than KVM takes") }
        return first
    }

    func set(_ routes: [InterruptRoute]) throws(Errno) {
        let result = table.withLock { table -> Result<Void, Errno> in
            for route in routes { if case .messageSignalled(let gsi, _, _) = route { table.messages[gsi] = route } }
            return Result { () throws(Errno) in try vm.setRoutes(MachineModel.interruptRoutes + table.messages.values) }
        }
        try result.get()
    }
}

/// Numbers for memory slots behind those of RAM.
final class KernelSlots: Sendable {
    private let last = Atomic<UInt32>(8)
    func next() -> UInt32 { last.add(1, ordering: .relaxed).oldValue }
}
