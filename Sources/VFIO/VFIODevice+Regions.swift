internal import CLinux
package import LinuxSystem
package import SystemPackage

/// A region of a PCI device: a window of its registers or memory (`VFIO_PCI_*_REGION_INDEX`).
package struct VFIORegionIndex: Sendable, Hashable {
    package let number: UInt32
    package init(_ number: UInt32) { self.number = number }

    /// Base address register `number`, 0 to 5.
    package static func bar(_ number: Int) -> VFIORegionIndex { VFIORegionIndex(UInt32(number)) }
    package static let rom = VFIORegionIndex(6)
    package static let configuration = VFIORegionIndex(7)
    package static let vga = VFIORegionIndex(8)
}

/// What VFIO_DEVICE_GET_REGION_INFO says. A size of 0: there is no such region.
package struct VFIORegion: Sendable, Equatable {
    package let index: VFIORegionIndex
    package let size: UInt64
    package let isReadable: Bool
    package let isWritable: Bool
    /// Parts that may be mapped, offsets in the region; empty: none.
    package let mappable: [ClosedRange<UInt64>]
    /// Whether the part with the MSI-X table may be mapped as well; accesses to it then do not reach the table.
    package let isMSIXMappable: Bool
    /// Where the region lies in the device's file.
    package let fileOffset: Int64
}

extension VFIODevice {
    /// Looks a region up. `EINVAL`: the device knows no such index.
    package func region(_ index: VFIORegionIndex) throws(Errno) -> VFIORegion {
        var told = cl_vfio_region()
        let sparse = try unsafe collectRanges {
            // SAFETY: the shim fills one structure and at most as many ranges as there is room for.
            unsafe cl_vfio_region_info(file.number, index.number, &told, $0, $1, $2)
        }
        let canMap = told.flags & 4 != 0 && told.size > 0
        return VFIORegion(
            index: index, size: told.size, isReadable: told.flags & 1 != 0, isWritable: told.flags & 2 != 0,
            mappable: !canMap ? [] : sparse.isEmpty ? [0...told.size - 1] : sparse, isMSIXMappable: told.msix_mappable != 0,
            fileOffset: Int64(bitPattern: told.offset))
    }

    /// Reads `count` bytes from `offset` of the region. `EIO` when fewer came.
    package func read(_ region: VFIORegion, at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        let place = try place(offset, count, in: region)
        let bytes = try file.descriptor.read(upTo: count, at: Int(place))
        if bytes.count != count { throw Errno.ioError }
        return bytes
    }

    /// Reads a little-endian value of 1, 2, 4 or 8 bytes. One access of the device, as far as the kernel makes it one: up to 4 bytes, aligned.
    package func load(_ region: VFIORegion, at offset: UInt64, width: Int) throws(Errno) -> UInt64 {
        try read(region, at: offset, count: min(max(width, 1), 8)).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Writes bytes at `offset` of the region. `EIO` when fewer went.
    package func write(_ bytes: [UInt8], to region: VFIORegion, at offset: UInt64) throws(Errno) {
        let place = try place(offset, bytes.count, in: region)
        // SAFETY: the kernel reads exactly the array.
        let written = try check(unsafe bytes.withUnsafeBytes { unsafe cl_vfio_write(file.number, $0.baseAddress, $0.count, place) })
        if written != bytes.count { throw Errno.ioError }
    }

    /// Writes a little-endian value of 1, 2, 4 or 8 bytes.
    package func store(_ value: UInt64, to region: VFIORegion, at offset: UInt64, width: Int) throws(Errno) {
        try write((0..<min(max(width, 1), 8)).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }, to: region, at: offset)
    }

    /// Maps `part`, which is within one of ``VFIORegion/mappable`` and of whole pages. While the device's memory is switched off, or it is reset, an
    /// access by this process faults (SIGBUS).
    package func map(_ region: VFIORegion, _ part: ClosedRange<UInt64>) throws(Errno) -> SharedMapping {
        guard region.mappable.contains(where: { $0.lowerBound <= part.lowerBound && part.upperBound <= $0.upperBound }) else {
            throw Errno.invalidArgument
        }
        let (offset, overflow) = region.fileOffset.addingReportingOverflow(Int64(clamping: part.lowerBound))
        guard !overflow, let length = Int(exactly: part.upperBound - part.lowerBound), length < .max else { throw Errno.outOfRange }
        return try SharedMapping(of: file.descriptor, offset: offset, length: length + 1, writable: region.isWritable)
    }

    /// Where in the file an access lies. `EFAULT` outside the region.
    private func place(_ offset: UInt64, _ count: Int, in region: VFIORegion) throws(Errno) -> Int64 {
        guard count >= 0, offset <= region.size, UInt64(count) <= region.size - offset, let within = Int64(exactly: offset) else {
            throw Errno.badAddress
        }
        let (place, overflow) = region.fileOffset.addingReportingOverflow(within)
        if overflow || place < 0 { throw Errno.badAddress }
        return place
    }
}
