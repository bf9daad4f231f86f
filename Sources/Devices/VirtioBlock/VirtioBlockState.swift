package import Checkpoint
package import Wire

/// What of a disk is carried from worker to worker beside its queues: what the driver was told of it.
package struct VirtioBlockState: Sendable, Equatable {
    /// Bytes, whole sectors.
    package var size: Int64
    /// Bytes of a logical block, a power of two from 512 on.
    package var blockSize: UInt32

    package init(size: Int64, blockSize: UInt32) {
        self.size = size
        self.blockSize = blockSize
    }
}

extension VirtioBlockState: DeviceState {
    package static let section = SectionRange("virtio-block", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u64(UInt64(size))
        writer.u32(blockSize)
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        let start = reader.offset
        let bytes = try reader.u64()
        guard bytes % BlockLimits.sector == 0, let size = Int64(exactly: bytes) else {
            throw .invalid(offset: start, field: "a disk's size", value: bytes)
        }
        self.size = size
        let next = reader.offset
        blockSize = try reader.u32()
        if blockSize < 512 || blockSize.nonzeroBitCount != 1 || blockSize > 1 << 20 {
            throw .invalid(offset: next, field: "a disk's block size", value: UInt64(blockSize))
        }
    }
}

extension VirtioBlockState {
    /// Bytes that storage writes at once without reading first, as the driver is told: a page of the page cache.
    private static let physicalBlock: UInt32 = 4096

    /// The configuration space (virtio 1.2 §5.2.4).
    func configuration(queues: Int, isReadOnly: Bool) -> [UInt8] {
        let physical = max(Self.physicalBlock, blockSize)
        var writer = WireWriter()
        writer.u64(UInt64(size) / BlockLimits.sector)
        writer.u32(BlockLimits.segmentSize)
        writer.u32(BlockLimits.segments)
        writer.u32(0)  // cylinders, heads, sectors
        writer.u32(blockSize)
        writer.u8(UInt8((physical / blockSize).trailingZeroBitCount))
        writer.u8(0)  // alignment offset
        writer.u16(UInt16(physical / blockSize))
        writer.u32(0)  // no best size
        writer.u16(0)  // writeback, unused
        writer.u16(UInt16(queues))
        writer.u32(isReadOnly ? 0 : BlockLimits.discardSectors)
        writer.u32(isReadOnly ? 0 : BlockLimits.ranges)
        writer.u32(blockSize / 512)
        writer.u32(isReadOnly ? 0 : BlockLimits.zeroSectors)
        writer.u32(isReadOnly ? 0 : BlockLimits.ranges)
        writer.u32(isReadOnly ? 0 : 1)  // zeroing may unmap
        return writer.bytes
    }
}
