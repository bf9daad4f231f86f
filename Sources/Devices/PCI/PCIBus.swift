package import Checkpoint
internal import Synchronization
package import Wire

/// Bus 0: finds a function by its number, and offers both ways to configuration space, ECAM and the ports 0xCF8 and 0xCFC.
///
/// A function number that nobody has reads as ones. There are no other buses.
package final class PCIBus: Sendable {
    /// Device numbers on a bus.
    package static let slots = 32
    /// Bytes of configuration space of one function in ECAM (PCI Express 3.0 §7.2.2).
    private static let functionSize = 4096

    private let functions: [(any PCIFunction)?]
    /// What was last written to 0xCF8: enable bit, bus, device, function, register.
    private let selection = Mutex<UInt32>(0)

    /// - Parameter functions: function 0 of each device, from device 0; nil for none.
    package init(_ functions: [(any PCIFunction)?]) {
        precondition(functions.count <= Self.slots, "a bus has 32 devices")
        self.functions = functions
    }

    /// All functions that are there, ascending.
    package var all: [any PCIFunction] { functions.compactMap { $0 } }

    /// Puts every BAR where firmware would.
    ///
    /// - Parameters:
    ///   - window: addresses below 4 GiB.
    ///   - high: addresses above, for 64-bit BARs of functions that want them there.
    package func placeBars(in window: Range<UInt64>, high: Range<UInt64>? = nil) {
        var allocator = PCIBarAllocator(window, high: high)
        for function in all { function.placeBars(with: &allocator) }
    }

    private func function(device: Int, function: Int) -> (any PCIFunction)? {
        function == 0 && device < functions.count ? functions[device] : nil
    }

    fileprivate func read(device: Int, function number: Int, at offset: Int, size: Int) -> UInt32 {
        guard let function = function(device: device, function: number) else { return .max }
        return function.readConfiguration(at: offset, size: size)
    }

    fileprivate func write(_ value: UInt32, device: Int, function number: Int, at offset: Int, size: Int) {
        function(device: device, function: number)?.writeConfiguration(value, at: offset, size: size)
    }

    package var state: PCIBusState { PCIBusState(selection: selection.withLock { $0 }) }

    package func restore(_ state: PCIBusState) { selection.withLock { $0 = state.selection } }
}

/// The enhanced configuration access mechanism: one window, 1 MiB for bus 0.
extension PCIBus: MMIODevice {
    /// Bytes for bus 0.
    package static let configurationSize: UInt64 = 1 << 20

    package func read(at offset: Int, size: Int) -> UInt64 {
        if size == 8 { return read(at: offset, size: 4) | read(at: offset + 4, size: 4) << 32 }
        let place = Place(offset)
        guard place.register % size == 0 else { return .max }
        return UInt64(read(device: place.device, function: place.function, at: place.register, size: size))
    }

    package func write(_ value: UInt64, at offset: Int, size: Int) {
        if size == 8 {
            write(value & 0xFFFF_FFFF, at: offset, size: 4)
            return write(value >> 32, at: offset + 4, size: 4)
        }
        let place = Place(offset)
        guard place.register % size == 0 else { return }
        write(UInt32(truncatingIfNeeded: value), device: place.device, function: place.function, at: place.register, size: size)
    }

    private struct Place {
        let device: Int
        let function: Int
        let register: Int

        init(_ offset: Int) {
            device = offset >> 15 & 0x1F
            function = offset >> 12 & 7
            register = offset & (functionSize - 1)
        }
    }
}

/// Configuration mechanism #1 (PCI Local Bus 3.0 §3.2.2.3.2). The address takes 32-bit accesses only: 0xCF9 is another device's.
extension PCIBus: WidePortDevice {
    package var ports: [ClosedRange<UInt16>] { [0xCF8...0xCF8, 0xCFC...0xCFF] }

    package func read(port: UInt16, size: Int) -> UInt32 {
        let selection = selection.withLock { $0 }
        if port == 0xCF8 { return size == 4 ? selection : .max }
        guard let place = place(selection, port, size) else { return .max }
        return read(device: place.device, function: place.function, at: place.register, size: size)
    }

    package func write(_ value: UInt32, port: UInt16, size: Int) {
        if port == 0xCF8 {
            if size == 4 { selection.withLock { $0 = value & 0x80FF_FFFC } }
            return
        }
        guard let place = place(selection.withLock { $0 }, port, size) else { return }
        write(value, device: place.device, function: place.function, at: place.register, size: size)
    }

    private func place(_ selection: UInt32, _ port: UInt16, _ size: Int) -> (device: Int, function: Int, register: Int)? {
        let register = Int(selection & 0xFC) + Int(port - 0xCFC)
        guard selection >> 31 == 1, selection >> 16 & 0xFF == 0, register % size == 0 else { return nil }
        return (Int(selection >> 11 & 0x1F), Int(selection >> 8 & 7), register)
    }
}

/// The stored state of ``PCIBus``.
package struct PCIBusState: Sendable, Equatable {
    /// Port 0xCF8.
    package var selection: UInt32 = 0

    package init(selection: UInt32 = 0) { self.selection = selection }
}

extension PCIBusState: DeviceState {
    package static let section = SectionRange("pci-bus", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) { writer.u32(selection) }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        let start = reader.offset
        selection = try reader.u32()
        if selection & ~0x80FF_FFFC != 0 { throw .invalid(offset: start, field: "the address at port 0xCF8", value: UInt64(selection)) }
    }
}
