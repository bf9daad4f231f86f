/// A stretch of guest-physical addresses backed by a stretch of the machine's memory object.
package struct GuestRegion: Sendable, Equatable {
    /// Guest-physical address of the first byte.
    package let address: UInt64
    /// Where the first byte is in the memory object.
    package let offset: Int
    package let length: Int

    package init(address: UInt64, offset: Int, length: Int) {
        self.address = address
        self.offset = offset
        self.length = length
    }

    /// Guest-physical address after the last byte.
    package var end: UInt64 { address + UInt64(length) }
}

/// Where a machine's RAM is in its physical address space (model `baton-1`): from 0 to at most 3 GiB, the rest from 4 GiB.
/// The gigabyte between is for devices: I/O APIC, local APICs, BARs.
package struct GuestMemoryLayout: Sendable, Equatable {
    /// RAM below this address is at the same offset in the memory object.
    package static let lowLimit = 3 << 30
    /// Where the rest of RAM begins.
    package static let highStart: UInt64 = 4 << 30

    /// Bytes of RAM, a multiple of the page size.
    package let size: Int
    /// One region, or two for more than 3 GiB; ascending.
    package let regions: [GuestRegion]

    /// - Parameter size: bytes of RAM, a positive multiple of 4096.
    package init(size: Int) {
        precondition(size > 0 && size % 4096 == 0, "RAM is a positive number of pages")
        self.size = size
        let low = min(size, Self.lowLimit)
        var regions = [GuestRegion(address: 0, offset: 0, length: low)]
        if size > low { regions.append(GuestRegion(address: Self.highStart, offset: low, length: size - low)) }
        self.regions = regions
    }

    /// The guest-physical addresses of a stretch of the memory object; ascending, one for each region it lies in.
    package func addresses(of offsets: Range<Int>) -> [Range<UInt64>] {
        regions.compactMap { region in
            let part = offsets.clamped(to: region.offset..<region.offset + region.length)
            guard !part.isEmpty else { return nil }
            let start = region.address + UInt64(part.lowerBound - region.offset)
            return start..<start + UInt64(part.count)
        }
    }

    /// Where `count` bytes at a guest-physical address are in the memory object; nil unless one region holds them all.
    package func offset(of address: UInt64, count: Int) -> Int? {
        for region in regions where address >= region.address && address <= region.end {
            if count >= 0 && UInt64(count) <= region.end - address { return region.offset + Int(address - region.address) }
        }
        return nil
    }
}
