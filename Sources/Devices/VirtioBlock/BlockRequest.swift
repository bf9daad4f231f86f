internal import GuestMemory

/// Feature bits of a disk (virtio 1.2 §5.2.3).
extension VirtioFeatures {
    package static let blockSizeMaximum = VirtioFeatures(rawValue: 1 << 1)
    package static let blockSegmentMaximum = VirtioFeatures(rawValue: 1 << 2)
    package static let blockReadOnly = VirtioFeatures(rawValue: 1 << 5)
    package static let blockSize = VirtioFeatures(rawValue: 1 << 6)
    package static let blockFlush = VirtioFeatures(rawValue: 1 << 9)
    package static let blockTopology = VirtioFeatures(rawValue: 1 << 10)
    package static let blockQueues = VirtioFeatures(rawValue: 1 << 12)
    package static let blockDiscard = VirtioFeatures(rawValue: 1 << 13)
    package static let blockWriteZeroes = VirtioFeatures(rawValue: 1 << 14)
}

/// What a disk asks its driver to keep to. Together they bound how long one request can keep a handover waiting.
enum BlockLimits {
    static let sector: UInt64 = 512
    static let queueSize: UInt16 = 256
    /// Segments of data in a request: a queue's descriptors without those for header and status.
    static let segments: UInt32 = 254
    /// Bytes in a segment.
    static let segmentSize: UInt32 = 1 << 20
    static let requestSize = Int(segments) * Int(segmentSize)
    /// Ranges in a request to discard or to write zeros.
    static let ranges: UInt32 = 16
    static let discardSectors: UInt32 = 1 << 22
    static let zeroSectors: UInt32 = 1 << 15
    /// Bytes of the serial number.
    static let serial = 20
}

/// What a request asks for (virtio 1.2 §5.2.6).
enum BlockOperation: UInt32 {
    case read = 0
    case write = 1
    case flush = 4
    case identify = 8
    case discard = 11
    case writeZeroes = 13
}

/// How a request ended.
enum BlockStatus: UInt8 {
    case done = 0
    case failed = 1
    case unsupported = 2
}

/// One request as the driver laid it out: header and data to read, data to write, and one byte for the status.
///
/// Used again and again by one thread; then it allocates nothing.
struct BlockRequest {
    /// Bytes of the header: type, reserved, sector.
    static let headerSize = 16

    var chain = DescriptorChain()
    /// Data that the driver sends.
    private(set) var outgoing: GuestVector
    /// Room for data that the driver gets.
    private(set) var incoming: GuestVector
    /// nil for one that this disk does not know.
    private(set) var operation: BlockOperation?
    private(set) var sector: UInt64 = 0
    private var statusAddress: UInt64 = 0
    private let memory: GuestMemory

    init(_ memory: GuestMemory) {
        self.memory = memory
        let parts = Int(BlockLimits.queueSize)
        outgoing = GuestVector(memory, capacity: parts)
        incoming = GuestVector(memory, capacity: parts)
    }

    /// Takes ``chain`` apart. `false` for one without a whole header or a byte for the status: there is no way to answer it.
    mutating func parse() -> Bool {
        outgoing.removeAll()
        incoming.removeAll()
        do {
            for segment in chain.readable { try outgoing.append(segment.address, segment.count) }
            guard let last = chain.writable.last else { return false }
            for segment in chain.writable.dropLast() { try incoming.append(segment.address, segment.count) }
            try incoming.append(last.address, last.count - 1)
            statusAddress = last.address + UInt64(last.count - 1)
        } catch { return false }
        guard let type = outgoing.load(UInt32.self, at: 0), let sector = outgoing.load(UInt64.self, at: 8) else { return false }
        outgoing.removeFirst(Self.headerSize)
        operation = BlockOperation(rawValue: type)
        self.sector = sector
        return true
    }

    /// Writes the status and returns how many bytes the driver may take as written.
    func end(_ status: BlockStatus) -> Int {
        try? memory.write(integer: status.rawValue, at: statusAddress)  // it was RAM when the chain was taken apart, and RAM stays
        return chain.writableBytes
    }

    /// The ranges of a request to discard or to write zeros, in bytes.
    ///
    /// - Parameters:
    ///   - size: of the disk.
    ///   - limit: sectors of a range.
    func ranges(size: Int64, limit: UInt32) throws(BlockFailure) -> [BlockRange] {
        let entry = 16
        guard outgoing.count > 0, outgoing.count % entry == 0, outgoing.count / entry <= Int(BlockLimits.ranges) else { throw .invalid }
        var ranges: [BlockRange] = []
        for offset in stride(from: 0, to: outgoing.count, by: entry) {
            guard let sector = outgoing.load(UInt64.self, at: offset), let count = outgoing.load(UInt32.self, at: offset + 8),
                let flags = outgoing.load(UInt32.self, at: offset + 12)
            else { throw .invalid }
            if flags & ~1 != 0 || flags == 1 && operation == .discard { throw .unsupported }
            guard count <= limit else { throw .invalid }
            let bytes = try Self.bytes(sector, UInt64(count) * BlockLimits.sector, size: size)
            ranges.append(BlockRange(bytes: bytes, mayUnmap: flags & 1 != 0))
        }
        return ranges
    }

    /// The stretch of the disk that the data in `list` belong to.
    func position(of list: GuestVector, size: Int64) throws(BlockFailure) -> Int64 {
        guard list.count > 0, list.count % Int(BlockLimits.sector) == 0, list.count <= BlockLimits.requestSize else { throw .invalid }
        return try Self.bytes(sector, UInt64(list.count), size: size).lowerBound
    }

    private static func bytes(_ sector: UInt64, _ count: UInt64, size: Int64) throws(BlockFailure) -> Range<Int64> {
        let end = UInt64(size)
        guard sector <= end / BlockLimits.sector, count <= end - sector * BlockLimits.sector else { throw .invalid }
        return Int64(sector * BlockLimits.sector)..<Int64(sector * BlockLimits.sector + count)
    }
}

/// A stretch of a disk to be discarded or zeroed.
struct BlockRange: Equatable {
    let bytes: Range<Int64>
    let mayUnmap: Bool
}
