/// Resource descriptors of `_CRS` (ACPI 6.5, section 6.4).
enum ACPIResource: Sendable, Equatable {
    /// Ports that the device itself answers.
    case ports(UInt16, count: UInt8)
    /// An ISA interrupt, edge-triggered.
    case interrupt(UInt8)
    /// Memory that the device itself answers.
    case memory32(Range<UInt64>)
    /// Bus numbers behind a bridge.
    case buses(ClosedRange<UInt16>)
    /// Ports that a bridge passes on.
    case portWindow(ClosedRange<UInt16>)
    /// Memory that a bridge passes on, below 4 GiB.
    case memoryWindow32(Range<UInt64>)
    /// The same anywhere.
    case memoryWindow64(Range<UInt64>)

    /// Address space descriptors: minimum and maximum are fixed, the bridge decodes what it passes on.
    private static let windowFlags: UInt8 = 0x0C
    private static let busType: UInt8 = 2
    private static let portType: UInt8 = 1
    private static let memoryType: UInt8 = 0
    /// ISA and non-ISA ports.
    private static let entireRange: UInt8 = 3
    /// Not cacheable, readable and writable.
    private static let writableMemory: UInt8 = 1

    private var descriptor: [UInt8] {
        switch self {
        case .ports(let first, let count):
            let port = AML.littleEndian(UInt64(first), bytes: 2)
            return [0x47, 1] + port + port + [1, count]  // decodes 16 bits
        case .interrupt(let number): return [0x22] + AML.littleEndian(1 << UInt64(number), bytes: 2)
        case .memory32(let range):
            return [0x86, 9, 0, 1] + AML.littleEndian(range.lowerBound, bytes: 4) + AML.littleEndian(UInt64(range.count), bytes: 4)
        case .buses(let range): return Self.window(0x88, 2, Self.busType, 0, UInt64(range.lowerBound), UInt64(range.upperBound))
        case .portWindow(let range):
            return Self.window(0x88, 2, Self.portType, Self.entireRange, UInt64(range.lowerBound), UInt64(range.upperBound))
        case .memoryWindow32(let range):
            return Self.window(0x87, 4, Self.memoryType, Self.writableMemory, range.lowerBound, range.upperBound - 1)
        case .memoryWindow64(let range):
            return Self.window(0x8A, 8, Self.memoryType, Self.writableMemory, range.lowerBound, range.upperBound - 1)
        }
    }

    /// A word, double-word or quad-word address space descriptor: granularity, minimum, maximum, translation, length.
    private static func window(_ tag: UInt8, _ width: Int, _ type: UInt8, _ typeFlags: UInt8, _ first: UInt64, _ last: UInt64) -> [UInt8] {
        let numbers = [0, first, last, 0, last - first + 1].flatMap { AML.littleEndian($0, bytes: width) }
        return [tag] + AML.littleEndian(UInt64(3 + numbers.count), bytes: 2) + [type, windowFlags, typeFlags] + numbers
    }

    /// A resource template: the descriptors and an end tag, whose checksum 0 means that there is none.
    static func template(_ resources: [ACPIResource]) -> AML.Term {
        AML.buffer(resources.flatMap(\.descriptor) + [0x79, 0])
    }
}
