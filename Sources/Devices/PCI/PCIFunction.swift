/// A function on bus 0: what answers its configuration space and its BARs.
///
/// Emulated ones are built on ``PCIEndpoint``. One that is passed through mediates its configuration space itself, and puts its BARs where the
/// guest does by memory slots instead of windows.
package protocol PCIFunction: AnyObject, Sendable {
    /// Addresses it answers by emulation, at wherever the guest has put its BARs.
    var windows: [MMIOWindow] { get }
    /// Reads 1, 2 or 4 bytes of its configuration space (0…4095), aligned to their size. On any vCPU's thread; does not block.
    func readConfiguration(at offset: Int, size: Int) -> UInt32
    /// Writes to it. On any vCPU's thread; does not block.
    func writeConfiguration(_ value: UInt32, at offset: Int, size: Int)
    /// What of its configuration space never changes, for the machine's fingerprint.
    var fixedConfiguration: [UInt8] { get }
    /// Puts its BARs into the window that firmware would put them into, at power-on.
    func placeBars(with allocator: inout PCIBarAllocator)
}

/// Gives out addresses for BARs as firmware does, the same ones for the same functions in the same order.
package struct PCIBarAllocator {
    private var low: Window
    private var high: Window?

    private struct Window {
        var next: UInt64
        let end: UInt64

        init(_ range: Range<UInt64>) {
            next = range.lowerBound
            end = range.upperBound
        }

        mutating func allocate(_ size: UInt64) -> UInt64? {
            let start = (next + size - 1) & ~(size - 1)
            guard start >= next, start < end, size <= end - start else { return nil }
            next = start + size
            return start
        }
    }

    /// - Parameters:
    ///   - window: guest-physical addresses below 4 GiB that no RAM and no other device has.
    ///   - high: the same above; nil where there are none.
    package init(_ window: Range<UInt64>, high: Range<UInt64>? = nil) {
        low = Window(window)
        self.high = high.map(Window.init)
    }

    /// Room for a BAR below 4 GiB, aligned to its size; nil when there is none left.
    package mutating func allocate(_ size: UInt64) -> UInt64? { low.allocate(size) }

    /// Room above 4 GiB, for a 64-bit BAR; below where there is none above.
    package mutating func allocateHigh(_ size: UInt64) -> UInt64? { high?.allocate(size) ?? low.allocate(size) }
}
