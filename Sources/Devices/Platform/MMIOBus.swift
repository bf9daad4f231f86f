internal import Synchronization

/// A device behind guest-physical addresses.
package protocol MMIODevice: AnyObject, Sendable {
    /// What a load of `size` bytes (1, 2, 4 or 8) at an offset of its window gives. On any vCPU's thread; does not block.
    func read(at offset: Int, size: Int) -> UInt64
    /// Takes a store. On any vCPU's thread; does not block.
    func write(_ value: UInt64, at offset: Int, size: Int)
}

/// Guest-physical addresses that a device answers, at a place that may change.
package final class MMIOWindow: Sendable {
    /// Bytes.
    package let size: UInt64
    let device: any MMIODevice
    private let base: Atomic<UInt64>

    private static let nowhere = UInt64.max

    /// - Parameter address: where it is; nil for nowhere yet.
    package init(_ device: any MMIODevice, size: UInt64, at address: UInt64? = nil) {
        self.device = device
        self.size = size
        base = Atomic(address ?? Self.nowhere)
    }

    /// Where it is; nil for nowhere.
    package var address: UInt64? {
        let address = base.load(ordering: .acquiring)
        return address == Self.nowhere ? nil : address
    }

    /// Moves it; nil takes it away. Accesses on other threads go to the old or to the new place.
    package func place(at address: UInt64?) { base.store(address ?? Self.nowhere, ordering: .releasing) }

    /// Where in the window `count` bytes at an address are.
    func offset(of address: UInt64, count: Int) -> Int? {
        let offset = address &- base.load(ordering: .acquiring)
        return offset < size && UInt64(count) <= size - offset ? Int(offset) : nil
    }
}

/// Finds the device behind a guest-physical address, without a lock. Where windows overlap the first one answers; what none has reads as
/// ones, and writes to it are lost.
package final class MMIOBus: Sendable {
    private let windows: [MMIOWindow]

    package init(_ windows: [MMIOWindow]) { self.windows = windows }

    /// Reads 1 to 8 bytes, little-endian.
    package func read(address: UInt64, size: Int) -> UInt64 {
        for window in windows {
            if let offset = window.offset(of: address, count: size) { return window.device.read(at: offset, size: size) }
        }
        return .max
    }

    /// Writes 1 to 8 bytes, little-endian.
    package func write(_ value: UInt64, address: UInt64, size: Int) {
        for window in windows {
            if let offset = window.offset(of: address, count: size) { return window.device.write(value, at: offset, size: size) }
        }
    }
}
