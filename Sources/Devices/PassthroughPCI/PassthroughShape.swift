/// What a guest is shown of a device, found out once: its configuration space with what is emulated, left to the device or hidden.
///
/// - BARs, interrupt line, MSI and MSI-X are emulated here. ROM, I/O ports and the extended space are not there.
/// - Of the capabilities those are shown that a driver needs and that cannot harm others: power management, MSI, vendor-specific, PCI
///   Express, MSI-X, advanced features.
/// - On bus 0 there are no links: an Express endpoint shows itself as integrated into the root complex (PCI Express 3.0 §7.8.2).
struct PassthroughShape: Sendable {
    /// A BAR, and what of it the guest's processors are given directly.
    struct Bar: Sendable {
        let bar: PCIBar
        let areas: [Range<UInt64>]
    }

    /// Where the MSI capability is (§6.8.1).
    struct Messages: Sendable {
        let capability: Int
        let is64Bit: Bool
        /// A power of two.
        let count: Int

        var control: Int { capability + 2 }
        var address: Int { capability + 4 }
        var data: Int { capability + (is64Bit ? 12 : 8) }
        var end: Int { data + 2 }
    }

    /// Where the MSI-X capability and what it tells of are (§6.8.2).
    struct ExtendedMessages: Sendable {
        let capability: Int
        let count: Int
        let tableBar: Int
        let table: Range<Int>
        let pendingBar: Int
        let pending: Range<Int>

        var control: Int { capability + 2 }
    }

    let bars: [Bar]
    let messages: Messages?
    let extended: ExtendedMessages?
    let hasLine: Bool
    /// At power-on.
    let space: PCIConfigurationSpace
    /// Bytes that are the device's own.
    let live: [Bool]

    private static let pageSize: UInt64 = 4096

    init(of device: any PassthroughDevice) {
        var builder = Builder(device)
        builder.keepCapabilities(of: device)
        let extended = builder.extended
        bars = Self.bars(of: device, builder.original).map { bar, region in
            Bar(bar: bar, areas: bar.size < Self.pageSize ? [] : Self.areas(of: region, without: Self.trapped(extended, region.index)))
        }
        messages = builder.messages
        self.extended = extended
        hasLine = device.vectors(.line) > 0 && (1...4).contains(builder.original[PCIRegister.interruptPin])
        if hasLine { builder.bytes[PCIRegister.interruptPin] = builder.original[PCIRegister.interruptPin] }
        live = builder.live
        space = PCIConfigurationSpace(bytes: builder.bytes, writable: builder.writable, bars: bars.map(\.bar))
    }

    /// Memory BARs only: no port of a device is given to a guest.
    private static func bars(of device: any PassthroughDevice, _ original: [UInt8]) -> [(PCIBar, PassthroughRegion)] {
        device.regions.compactMap { region in
            guard (0...5).contains(region.index), region.size >= 16, region.size & (region.size - 1) == 0 else { return nil }
            let flags = original[PCIRegister.bars + 4 * region.index]
            let is64Bit = flags & 6 == 4 && region.index < 5
            guard flags & 1 == 0, is64Bit || region.size < 1 << 32 else { return nil }
            return (PCIBar(index: region.index, size: region.size, is64Bit: is64Bit, isPrefetchable: flags & 8 != 0), region)
        }
    }

    /// Pages of a BAR that are answered here, not by the device.
    private static func trapped(_ extended: ExtendedMessages?, _ bar: Int) -> [Range<UInt64>] {
        guard let extended else { return [] }
        return [(extended.tableBar, extended.table), (extended.pendingBar, extended.pending)].compactMap { index, range in
            guard index == bar else { return nil }
            return UInt64(range.lowerBound) & ~(pageSize - 1)..<(UInt64(range.upperBound) + pageSize - 1) & ~(pageSize - 1)
        }
    }

    private static func areas(of region: PassthroughRegion, without trapped: [Range<UInt64>]) -> [Range<UInt64>] {
        var areas = region.mappable
        for hole in trapped {
            areas = areas.flatMap { area in
                [
                    area.lowerBound..<max(area.lowerBound, min(area.upperBound, hole.lowerBound)),
                    min(area.upperBound, max(area.lowerBound, hole.upperBound))..<area.upperBound,
                ].filter { !$0.isEmpty }
            }
        }
        return areas
    }
}

extension PassthroughShape {
    /// Goes through a device's configuration space.
    private struct Builder {
        let original: [UInt8]
        var bytes = [UInt8](repeating: 0, count: PCIConfigurationSpace.size)
        var writable = [UInt8](repeating: 0, count: PCIConfigurationSpace.size)
        var live = [Bool](repeating: false, count: PCIConfigurationSpace.size)
        var messages: Messages?
        var extended: ExtendedMessages?
        private var last = PCIRegister.capabilities

        init(_ device: any PassthroughDevice) {
            var original: [UInt8] = []
            for offset in stride(from: 0, to: PCIConfigurationSpace.size, by: 4) {
                original += littleEndian(device.readConfiguration(at: offset, size: 4))
            }
            self.original = original
            let fixed = [PCIRegister.vendor..<PCIRegister.command, PCIRegister.revision..<PCIRegister.cacheLineSize, 0x2C..<0x30]
            for offset in fixed.joined() { bytes[offset] = original[offset] }
            setWritable(UInt32(PCICommand.all.rawValue), at: PCIRegister.command, size: 2)
            setLive(PCIRegister.status..<PCIRegister.status + 2)
            setWritable(0xFF, at: PCIRegister.cacheLineSize, size: 1)
            setWritable(0xFF, at: PCIRegister.interruptLine, size: 1)
        }

        private mutating func setWritable(_ mask: UInt32, at offset: Int, size: Int) {
            for index in 0..<size { writable[offset + index] = UInt8(truncatingIfNeeded: mask >> UInt32(8 * index)) }
        }

        private mutating func setLive(_ range: Range<Int>) {
            for offset in range where offset < live.count { live[offset] = true }
        }

        private func word(_ offset: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(original[(offset + $1) & 0xFF]) << UInt32(8 * $1) }
        }

        mutating func keepCapabilities(of device: any PassthroughDevice) {
            guard original[PCIRegister.status] & 0x10 != 0 else { return }
            var next = Int(original[PCIRegister.capabilities] & 0xFC)
            var seen: Set<Int> = []
            while next >= PCIRegister.firstCapability, seen.insert(next).inserted {
                keep(next, of: device)
                next = Int(original[next + 1] & 0xFC)
            }
        }

        private mutating func keep(_ at: Int, of device: any PassthroughDevice) {
            switch original[at] {
            case 0x01: link(at, 8, live: 4..<8)
            case 0x05: keepMessages(at, device.vectors(.message))
            case 0x09: link(at, max(3, Int(original[at + 2])), live: 3..<max(3, Int(original[at + 2])))
            case 0x10: keepExpress(at)
            case 0x11: keepExtended(at, device.vectors(.extended), device.regions)
            case 0x13: link(at, 6, live: 4..<6)
            default: break
            }
        }

        private mutating func link(_ at: Int, _ size: Int, live range: Range<Int> = 0..<0) {
            guard at + size <= bytes.count else { return }
            for offset in at..<at + size where !range.contains(offset - at) { bytes[offset] = original[offset] }
            bytes[at + 1] = 0
            bytes[last == PCIRegister.capabilities ? last : last + 1] = UInt8(at)
            last = at
            bytes[PCIRegister.status] |= 0x10
            setLive(at + range.lowerBound..<at + range.upperBound)
        }

        /// Without masks of single vectors: those are for MSI-X.
        private mutating func keepMessages(_ at: Int, _ available: Int) {
            let control = UInt16(truncatingIfNeeded: word(at) >> 16)
            let is64Bit = control & 0x80 != 0
            let found = Messages(capability: at, is64Bit: is64Bit, count: 1 << min(5, Int(control >> 1 & 7)))
            guard messages == nil, available > 0, found.end <= bytes.count else { return }
            var exponent = 0
            while exponent < 5, 2 << exponent <= min(available, found.count) { exponent += 1 }
            link(at, found.end - at)
            for offset in at + 2..<found.end { bytes[offset] = 0 }
            bytes[at + 2] = UInt8(exponent << 1) | (is64Bit ? 0x80 : 0)
            setWritable(0x71, at: found.control, size: 2)
            setWritable(0xFFFF_FFFC, at: found.address, size: 4)
            if is64Bit { setWritable(.max, at: found.address + 4, size: 4) }
            setWritable(0xFFFF, at: found.data, size: 2)
            messages = Messages(capability: at, is64Bit: is64Bit, count: 1 << exponent)
        }

        private mutating func keepExtended(_ at: Int, _ available: Int, _ regions: [PassthroughRegion]) {
            guard extended == nil, available > 0, at + 12 <= bytes.count else { return }
            let count = min(Int(word(at) >> 16 & 0x7FF) + 1, available)  // what there are no events for is not shown
            let table = word(at + 4)
            let pending = word(at + 8)
            let found = ExtendedMessages(
                capability: at, count: count, tableBar: Int(table & 7), table: Int(table & ~7)..<Int(table & ~7) + 16 * count,
                pendingBar: Int(pending & 7), pending: Int(pending & ~7)..<Int(pending & ~7) + (count + 63) / 64 * 8)
            let fits = [(found.tableBar, found.table), (found.pendingBar, found.pending)].allSatisfy { index, range in
                regions.contains { $0.index == index && UInt64(range.upperBound) <= $0.size }
            }
            guard fits else { return }
            link(at, 12)
            bytes[at + 2] = UInt8(truncatingIfNeeded: count - 1)
            bytes[at + 3] = UInt8(truncatingIfNeeded: (count - 1) >> 8)
            setWritable(0xC000, at: found.control, size: 2)
            extended = found
        }

        private mutating func keepExpress(_ at: Int) {
            let flags = UInt16(truncatingIfNeeded: word(at) >> 16)
            let size = flags & 0xF >= 2 ? 0x3C : 0x14
            guard at + size <= bytes.count else { return }
            link(at, size, live: 8..<12)
            for offset in at + 0x0C..<at + size where !(0x24..<0x2C).contains(offset - at) || size < 0x3C { bytes[offset] = 0 }
            if size >= 0x3C {
                for offset in at + 0x28..<at + 0x2C { bytes[offset] = 0 }
                setLive(at + 0x28..<at + 0x2C)
            }
            let type = flags >> 4 & 0xF
            if type == 0 || type == 1 { bytes[at + 2] = UInt8(flags & 0xF) | 9 << 4 }
            bytes[at + 3] &= 0xFE  // no slot
        }
    }
}
