package import Checkpoint
internal import Synchronization
package import Wire

/// Configuration space, BARs and MSI-X of an emulated function.
package final class PCIEndpoint: Sendable {
    /// A BAR and what answers it.
    package struct Region: Sendable {
        package let bar: PCIBar
        package let window: MMIOWindow

        package init(_ bar: PCIBar, _ window: MMIOWindow) {
            self.bar = bar
            self.window = window
        }
    }

    package let regions: [Region]
    package let messages: MSIXTable?
    private let messageControl: Int
    private let space: Mutex<PCIConfigurationSpace>
    private let moved: @Sendable (PCIBar, UInt64?) -> Void

    /// - Parameters:
    ///   - messages: with the BAR and the offsets in it where table and pending bits are.
    ///   - capabilities: adds whatever else the function has, after MSI-X.
    ///   - moved: a BAR has another address now, or none. On the thread that did it.
    package init(
        _ identity: PCIIdentity, regions: [Region], messages: (table: MSIXTable, bar: Int, tableOffset: UInt32, pendingOffset: UInt32)?,
        capabilities: (inout PCIConfigurationSpace) -> Void = { _ in }, moved: @escaping @Sendable (PCIBar, UInt64?) -> Void = { _, _ in }
    ) {
        self.regions = regions
        self.messages = messages?.table
        self.moved = moved
        var space = PCIConfigurationSpace(identity, bars: regions.map(\.bar))
        if let messages {
            var body = littleEndian(UInt16(messages.table.count - 1))
            body += littleEndian(messages.tableOffset | UInt32(messages.bar)) + littleEndian(messages.pendingOffset | UInt32(messages.bar))
            messageControl = 2 + space.addCapability(0x11, body, writable: [0, 0xC0])
        } else {
            messageControl = 0
        }
        capabilities(&space)
        self.space = Mutex(space)
    }

    package var windows: [MMIOWindow] { regions.map(\.window) }

    package var fixedConfiguration: [UInt8] { space.withLock { $0.fixed } }

    package func readConfiguration(at offset: Int, size: Int) -> UInt32 { space.withLock { $0.read(at: offset, size: size) } }

    package func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) {
        change { $0.write(value, at: offset, size: size) }
    }

    /// What firmware does at power-on.
    package func placeBars(with allocator: inout PCIBarAllocator) {
        let addresses = regions.map { ($0.bar, allocator.allocate($0.bar.size)) }
        change { space in for (bar, address) in addresses { if let address { space.place(bar, at: address) } } }
    }

    /// Puts a BAR where it will be, enabled, before the state that says so has come.
    package func anticipate(_ bar: PCIBar, at address: UInt64) {
        change { space in
            space.place(bar, at: address)
            space.write(UInt32(PCICommand.memory.rawValue), at: PCIRegister.command, size: 2)
        }
    }

    /// Changes the configuration space, and whatever follows from it, before anybody else sees it.
    private func change(_ body: (inout PCIConfigurationSpace) -> Void) {
        space.withLock { space in
            let control = space.read(at: messageControl, size: 2)
            body(&space)
            move(space)
            let newControl = space.read(at: messageControl, size: 2)
            if let messages, newControl != control {
                messages.setControl(isEnabled: newControl & 0x8000 != 0, isMasked: newControl & 0x4000 != 0)
            }
        }
    }

    private func move(_ space: borrowing PCIConfigurationSpace) {
        for region in regions {
            let address = space.address(of: region.bar)
            guard address != region.window.address else { continue }
            region.window.place(at: address)
            moved(region.bar, address)
        }
    }

    package var state: PCIFunctionState {
        PCIFunctionState(registers: space.withLock { $0.changeable }, messages: messages?.state ?? MSIXState(words: [], pending: []))
    }

    /// Whether a state can be this function's.
    package func accepts(_ state: PCIFunctionState) -> Bool {
        space.withLock { $0.accepts(changeable: state.registers) } && state.messages.words.count == 4 * (messages?.count ?? 0)
    }

    /// Takes over a state that is accepted.
    package func restore(_ state: PCIFunctionState) {
        space.withLock { space in
            space.changeable = state.registers
            move(space)
            let control = space.read(at: messageControl, size: 2)
            messages?.restore(state.messages, isEnabled: control & 0x8000 != 0, isMasked: control & 0x4000 != 0)
        }
    }
}

/// The stored state of an emulated function: the registers that the guest can change, and its MSI-X table.
package struct PCIFunctionState: Sendable, Equatable {
    /// The changeable bytes of its configuration space, ascending. Where those are is part of the machine's shape.
    package var registers: [UInt8]
    package var messages: MSIXState

    package init(registers: [UInt8] = [], messages: MSIXState = MSIXState(words: [], pending: [])) {
        self.registers = registers
        self.messages = messages
    }
}

extension PCIFunctionState: DeviceState {
    package static let section = SectionRange("pci", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.blob(registers)
        messages.encode(to: &writer)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        registers = try reader.blob(limit: PCIConfigurationSpace.size)
        messages = try MSIXState(from: &reader)
    }
}

/// The bytes of an integer, least significant first.
func littleEndian<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }
}
