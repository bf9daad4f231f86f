internal import Synchronization

/// A function of the host that the guest has: its registers and its DMA are the device's own, its place in the guest is ours.
///
/// Nothing of the device's state is here, so that a handover moves it without the device noticing: the next worker's function shows the same
/// emulated registers, and the device's own are where they were. Between ``quiesce()`` and ``resume()`` messages only count, and between ``stop()`` and
/// ``resume()`` the line does.
package final class PassthroughFunction: Sendable {
    struct Live {
        var space: PCIConfigurationSpace
        /// MSI-X: address low, address high, data, control of each vector.
        var table: [UInt32]
        /// What the device's interrupts are armed for.
        var mode = InterruptMode.none
        /// Messages only count, and a line that is not attached is not going to be.
        var isHeld = true
        /// Vectors whose events interrupt the guest now.
        var attached: [Bool]
        var isLineAttached = false
        /// Where vectors lead now.
        var routes: [PCIMessage?]
        /// Where BARs are now.
        var places: [UInt64?]
    }

    let device: any PassthroughDevice
    let host: any PassthroughHost
    let shape: PassthroughShape
    let live: Mutex<Live>
    package let windows: [MMIOWindow]

    /// Looks at the device; changes nothing of it.
    package init(_ device: any PassthroughDevice, host: any PassthroughHost) {
        self.device = device
        self.host = host
        let shape = PassthroughShape(of: device)
        self.shape = shape
        let vectors = max(shape.extended?.count ?? 0, shape.messages?.count ?? 0, 1)
        live = Mutex(
            Live(
                space: shape.space, table: Self.emptyTable(shape.extended?.count ?? 0), attached: [Bool](repeating: false, count: vectors),
                routes: [PCIMessage?](repeating: nil, count: vectors), places: [UInt64?](repeating: nil, count: shape.bars.count)))
        let answers = shape.bars.map { BarAnswer($0.bar.index) }
        windows = zip(answers, shape.bars).map { MMIOWindow($0, size: $1.bar.size) }
        for answer in answers { answer.owner.withLock { $0.function = self } }
    }

    private static func emptyTable(_ count: Int) -> [UInt32] { (0..<4 * count).map { $0 % 4 == 3 ? maskedVector : 0 } }

    /// Vector Control, bit 0.
    static let maskedVector: UInt32 = 1

    /// Brings the device into the state of power-on: no interrupts, no memory, no DMA. Before any guest has it; not in a handover.
    package func powerOn() {
        live.withLock { live in
            for mode in [InterruptMode.extended, .message, .line] { device.disarm(mode) }
            for vector in live.attached.indices { host.forget(vector) }
            device.writeConfiguration(0, at: PCIRegister.command, size: 2)
            live.mode = .none
            chooseMode(&live)
        }
    }

    /// Where BARs are, by the order of the device's; 0 for nowhere.
    package var placements: [UInt64] { live.withLock { $0.places.map { $0 ?? 0 } } }

    /// Where vectors lead, those that have led anywhere.
    package var messages: [VectorMessage] {
        live.withLock { live in
            live.routes.enumerated().compactMap { vector, message in message.map { VectorMessage(vector: vector, message: $0) } }
        }
    }

    /// Puts BARs where they were in the worker before and has vectors lead where they led, so that no memory slot is added in a blackout and no route is
    /// set: KVM waits for readers of the old ones. The device is not told.
    package func anticipate(_ placements: [UInt64], _ messages: [VectorMessage] = []) {
        live.withLock { live in
            let known = messages.filter { live.routes.indices.contains($0.vector) }
            for message in known { live.routes[message.vector] = message.message }
            if !known.isEmpty { host.route(known) }
            for (bar, address) in zip(shape.bars, placements) where address != 0 { live.space.place(bar.bar, at: address) }
            if placements.contains(where: { $0 != 0 }) {
                live.space.write(UInt32(PCICommand.memory.rawValue), at: PCIRegister.command, size: 2)
            }
            move(&live, isNew: false)
        }
    }

    /// Takes away or puts BARs whose address has changed: all old places first.
    ///
    /// - Parameter isNew: the guest, or firmware, does it now; otherwise it is as it was in the worker before.
    private func move(_ live: inout Live, isNew: Bool) {
        let addresses = shape.bars.map { live.space.address(of: $0.bar) }
        let moved = addresses.indices.filter { addresses[$0] != live.places[$0] }
        for index in moved where live.places[index] != nil {
            windows[index].place(at: nil)
            if isNew { host.share(bar: shape.bars[index].bar.index, false) }
            host.place(bar: shape.bars[index].bar.index, areas: shape.bars[index].areas, at: nil)
        }
        for index in moved {
            live.places[index] = addresses[index]
            guard let address = addresses[index] else { continue }
            windows[index].place(at: address)
            host.place(bar: shape.bars[index].bar.index, areas: shape.bars[index].areas, at: address)
            if isNew { host.share(bar: shape.bars[index].bar.index, true) }
        }
    }
}

extension PassthroughFunction: PCIFunction {
    package var fixedConfiguration: [UInt8] { live.withLock { $0.space.fixed } }

    package func placeBars(with allocator: inout PCIBarAllocator) {
        let addresses = shape.bars.map { bar in
            let size = max(bar.bar.size, 4096)  // no two in one page: they may become memory slots
            return bar.bar.is64Bit ? allocator.allocateHigh(size) : allocator.allocate(size)
        }
        live.withLock { live in
            for (bar, address) in zip(shape.bars, addresses) { if let address { live.space.place(bar.bar, at: address) } }
            move(&live, isNew: true)
        }
    }

    package func readConfiguration(at offset: Int, size: Int) -> UInt32 {
        let emulated = live.withLock { $0.space.read(at: offset, size: size) }
        let mask = deviceMask(offset, size)
        if mask == 0 { return emulated }
        var value = emulated & ~mask | device.readConfiguration(at: offset, size: size) & mask
        // Which capabilities there are is said here, not by the device.
        if offset <= PCIRegister.status, offset + size > PCIRegister.status {
            let shift = UInt32(8 * (PCIRegister.status - offset))
            value = value & ~(0x10 << shift) | emulated & 0x10 << shift
        }
        return value
    }

    /// Which bits of an access are the device's own.
    private func deviceMask(_ offset: Int, _ size: Int) -> UInt32 {
        var mask: UInt32 = 0
        for index in 0..<size where offset + index < shape.live.count && shape.live[offset + index] { mask |= 0xFF << UInt32(8 * index) }
        return mask
    }

    package func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) {
        forward(value, offset, size)
        live.withLock { live in
            live.space.write(value, at: offset, size: size)
            // What the guest cannot reach any more goes before the device stops answering it, what it can reach comes after it answers.
            if (offset..<offset + size).overlaps(PCIRegister.command..<PCIRegister.command + 2) {
                let command = live.space.command
                if !command.contains(.memory) { move(&live, isNew: true) }
                device.writeConfiguration(UInt32(command.rawValue), at: PCIRegister.command, size: 2)
            }
            move(&live, isNew: true)
            if touchesInterrupts(offset, size) { chooseMode(&live) }
        }
    }

    /// Passes on what is the device's own.
    private func forward(_ value: UInt32, _ offset: Int, _ size: Int) {
        let mask = deviceMask(offset, size)
        if mask == 0 { return }
        if mask == UInt32.max >> UInt32(32 - 8 * size) { return device.writeConfiguration(value, at: offset, size: size) }
        if mask == 0xFFFF_0000 { return device.writeConfiguration(value >> 16, at: offset + 2, size: 2) }
        for index in 0..<size where mask >> UInt32(8 * index) & 0xFF != 0 {
            device.writeConfiguration(value >> UInt32(8 * index) & 0xFF, at: offset + index, size: 1)
        }
    }

    private func touchesInterrupts(_ offset: Int, _ size: Int) -> Bool {
        let range = offset..<offset + size
        if let extended = shape.extended, range.overlaps(extended.capability..<extended.capability + 4) { return true }
        if let messages = shape.messages, range.overlaps(messages.capability..<messages.end) { return true }
        return false
    }
}

extension PassthroughFunction: Device {
    package func quiesce() { live.withLock { hold(&$0) } }

    /// Once no vCPU runs: KVM lets go of a line in two steps, and delivers anew what a guest ends between them
    /// (Linux, virt/kvm/eventfd.c, `irqfd_resampler_shutdown`).
    package func stop() { live.withLock { holdLine(&$0) } }

    package func resume() { live.withLock { release(&$0) } }

    package func state() -> PassthroughState {
        live.withLock { PassthroughState(registers: $0.space.changeable, table: $0.table, mode: $0.mode) }
    }

    /// Whether a state can be this function's.
    package func accepts(_ state: PassthroughState) -> Bool {
        let hasMode =
            switch state.mode {
            case .none: true
            case .line: shape.hasLine
            case .message: shape.messages != nil
            case .extended: shape.extended != nil
            }
        return hasMode && live.withLock { $0.space.accepts(changeable: state.registers) && state.table.count == $0.table.count }
    }

    /// Takes over a state that is accepted. The device, whose state has gone on, is not touched, and nothing is attached.
    package func restore(_ state: PassthroughState) {
        guard accepts(state) else { return }
        live.withLock { live in
            live.space.changeable = state.registers
            live.table = state.table
            live.mode = state.mode
            move(&live, isNew: false)
            routeAll(&live)
        }
    }
}

/// What answers a BAR where no memory slot does.
private final class BarAnswer: MMIODevice {
    struct Owner: Sendable { weak var function: PassthroughFunction? }

    let bar: Int
    let owner = Mutex(Owner())

    init(_ bar: Int) { self.bar = bar }

    private var function: PassthroughFunction? { owner.withLock { $0.function } }

    func read(at offset: Int, size: Int) -> UInt64 { function?.read(bar: bar, at: offset, size: size) ?? .max }

    func write(_ value: UInt64, at offset: Int, size: Int) { function?.write(value, bar: bar, at: offset, size: size) }
}
