internal import Synchronization

/// A device behind I/O ports, eight bits wide as everything on a PC's ISA bus here is.
package protocol PortDevice: AnyObject, Sendable {
    /// The ports it answers. Fixed by the model.
    var ports: [ClosedRange<UInt16>] { get }
    /// What a read of one of its ports returns. On any vCPU's thread; does not block.
    func read(port: UInt16) -> UInt8
    /// Takes a write to one of its ports. On any vCPU's thread; does not block.
    func write(_ value: UInt8, port: UInt16)
}

/// A device behind I/O ports that sees each access whole.
package protocol WidePortDevice: AnyObject, Sendable {
    /// The ports it answers. Fixed by the model.
    var ports: [ClosedRange<UInt16>] { get }
    /// What a read of `size` bytes (1, 2 or 4) that begins at one of its ports returns. On any vCPU's thread; does not block.
    func read(port: UInt16, size: Int) -> UInt32
    /// Takes a write that begins at one of its ports. On any vCPU's thread; does not block.
    func write(_ value: UInt32, port: UInt16, size: Int)
}

/// Finds the device behind a port.
///
/// A wider access goes to the device that has its first port: whole to a wide device, to others byte by byte, as far as that device's
/// range reaches. What no device has reads as ones; writes to it are counted and ignored. So a 32-bit write to the PCI configuration address at 0xCF8 does not
/// reach the reset register at 0xCF9.
package final class PortBus: Sendable {
    private struct Slot {
        let ports: ClosedRange<UInt16>
        let device: Kind

        /// The ports of an access of `size` bytes from `port` that are this device's.
        func reach(from port: UInt16, _ size: Int) -> ClosedRange<UInt16> {
            port...UInt16(min(Int(ports.upperBound), Int(port) + min(4, size) - 1))
        }
    }
    private enum Kind {
        case narrow(any PortDevice)
        case wide(any WidePortDevice)
    }

    private let slots: [Slot]
    private let ignored = Atomic<UInt64>(0)

    /// - Parameter devices: no two with a port in common.
    package init(_ devices: [any PortDevice], wide: [any WidePortDevice] = []) {
        let narrow = devices.flatMap { device in device.ports.map { Slot(ports: $0, device: .narrow(device)) } }
        let whole = wide.flatMap { device in device.ports.map { Slot(ports: $0, device: .wide(device)) } }
        let slots = (narrow + whole).sorted { $0.ports.lowerBound < $1.ports.lowerBound }
        for (slot, next) in zip(slots, slots.dropFirst()) {
            precondition(slot.ports.upperBound < next.ports.lowerBound, "two devices at port 0x\(String(next.ports.lowerBound, radix: 16))")
        }
        self.slots = slots
    }

    /// Writes that no device took.
    package var ignoredWrites: UInt64 { ignored.load(ordering: .relaxed) }

    /// Reads `size` bytes (1, 2 or 4), little-endian.
    package func read(port: UInt16, size: Int) -> UInt32 {
        guard let slot = slot(port) else { return .max }
        switch slot.device {
        case .wide(let device): return device.read(port: port, size: size)
        case .narrow(let device):
            var value = UInt32.max
            for (index, at) in slot.reach(from: port, size).enumerated() {
                let shift = UInt32(8 * index)
                value = value & ~(0xFF << shift) | UInt32(device.read(port: at)) << shift
            }
            return value
        }
    }

    /// Writes `size` bytes (1, 2 or 4), little-endian.
    package func write(_ value: UInt32, port: UInt16, size: Int) {
        guard let slot = slot(port) else {
            ignored.add(1, ordering: .relaxed)
            return
        }
        switch slot.device {
        case .wide(let device): device.write(value, port: port, size: size)
        case .narrow(let device):
            for (index, at) in slot.reach(from: port, size).enumerated() {
                device.write(UInt8(truncatingIfNeeded: value >> UInt32(8 * index)), port: at)
            }
        }
    }

    private func slot(_ port: UInt16) -> Slot? {
        for slot in slots where slot.ports.contains(port) { return slot }
        return nil
    }
}
