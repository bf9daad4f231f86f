internal import GuestMemory

/// Where what a machine starts with lies in its RAM. Everything but the ACPI tables is below 0x10000,
/// where kernels expect firmware's leavings.
enum BootLayout {
    /// Global descriptor table of the 64-bit entry.
    static let descriptorTable: UInt64 = 0x500
    /// PVH: struct hvm_start_info, then the module list, then the memory map.
    static let startInfo: UInt64 = 0x6000
    static let moduleList: UInt64 = 0x6040
    static let memoryMap: UInt64 = 0x6100
    /// Linux: struct boot_params, the "zero page".
    static let zeroPage: UInt64 = 0x7000
    static let commandLine: UInt64 = 0x8000
    /// Bytes for the command line, its NUL included.
    static let commandLineRoom = 0x1000
    /// PML4, PDPT and four page directories that map the first 4 GiB one to one.
    static let pageTables: UInt64 = 0x9000
    /// The end of all that. Kernels lie above.
    static let end: UInt64 = 0x10000

    /// Where legacy video memory and firmware would be: no RAM for the guest.
    static let hole: Range<UInt64> = 0xA_0000..<0x10_0000
}

/// A stretch of the guest's address space as its memory map tells it.
struct BootMemoryRange: Sendable, Equatable {
    /// Types of e820, which PVH shares.
    enum Kind: UInt32, Sendable {
        case memory = 1
        case reserved = 2
    }

    let address: UInt64
    let length: UInt64
    let kind: Kind

    /// The memory map of a machine: its RAM without the hole below 1 MiB, which is reserved, as is PCI configuration space. Ascending.
    static func map(of layout: GuestMemoryLayout) -> [BootMemoryRange] {
        var map: [BootMemoryRange] = []
        let configuration = BootMemoryRange(
            address: AddressMap.configurationReserved.lowerBound, length: UInt64(AddressMap.configurationReserved.count), kind: .reserved)
        for region in layout.regions {
            guard region.address < BootLayout.hole.lowerBound else {
                map.append(BootMemoryRange(address: region.address, length: UInt64(region.length), kind: .memory))
                continue
            }
            map.append(BootMemoryRange(address: 0, length: min(region.end, BootLayout.hole.lowerBound), kind: .memory))
            if region.end > BootLayout.hole.upperBound {
                map.append(BootMemoryRange(address: BootLayout.hole.lowerBound, length: 0x6_0000, kind: .reserved))
                map.append(BootMemoryRange(address: BootLayout.hole.upperBound, length: region.end - BootLayout.hole.upperBound, kind: .memory))
            }
        }
        map.insert(configuration, at: map.firstIndex { $0.address > configuration.address } ?? map.count)
        return map
    }
}

/// Keeps what is loaded apart and inside RAM.
struct BootPlacement: Sendable {
    private let map: [BootMemoryRange]
    private var taken: [Range<UInt64>] = [0..<BootLayout.end]

    init(_ layout: GuestMemoryLayout) { map = BootMemoryRange.map(of: layout) }

    /// RAM below 4 GiB ends here.
    var lowEnd: UInt64 { map.last { $0.address < GuestMemoryLayout.highStart && $0.kind == .memory }.map { $0.address + $0.length } ?? 0 }

    /// Claims a place for `what`.
    mutating func claim(_ what: String, at address: UInt64, length: UInt64) throws(BootError) {
        let (end, overflow) = address.addingReportingOverflow(length)
        let isMemory = !overflow && map.contains { $0.kind == .memory && address >= $0.address && end <= $0.address + $0.length }
        if !isMemory { throw .placement(of: what, address: address, length: length, reason: "does not lie in RAM") }
        if length == 0 { return }
        if let other = taken.first(where: { $0.overlaps(address..<end) }) {
            let reason =
                other.lowerBound == 0
                ? "lies on what the machine starts with (below 0x10000)" : "lies on something loaded at 0x\(String(other.lowerBound, radix: 16))"
            throw .placement(of: what, address: address, length: length, reason: reason)
        }
        taken.append(address..<end)
    }

    /// The highest page-aligned free place for `length` bytes that ends at or below `limit`.
    mutating func claimHighest(_ what: String, length: UInt64, limit: UInt64) throws(BootError) -> UInt64 {
        var end = min(limit, lowEnd)
        while end >= length, end > 0 {
            let address = (end - length) & ~0xFFF
            guard let obstacle = taken.filter({ $0.overlaps(address..<address + max(1, length)) }).map(\.lowerBound).min() else {
                try claim(what, at: address, length: length)
                return address
            }
            end = obstacle
        }
        throw .placement(of: what, address: 0, length: length, reason: "has no room in RAM below 0x\(String(limit, radix: 16))")
    }
}
