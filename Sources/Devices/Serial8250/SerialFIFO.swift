/// The 16-byte receive FIFO of a 16550A.
struct SerialFIFO: Sendable {
    static let capacity = 16
    private var bytes: InlineArray<16, UInt8> = .init(repeating: 0)
    private var first = 0
    private(set) var count = 0

    init() {}

    /// - Parameter content: at most 16 bytes.
    init(_ content: [UInt8]) {
        for byte in content.prefix(Self.capacity) { append(byte) }
    }

    var isFull: Bool { count == Self.capacity }
    var content: [UInt8] { (0..<count).map { bytes[(first + $0) % Self.capacity] } }

    mutating func append(_ byte: UInt8) {
        guard !isFull else { return }
        bytes[(first + count) % Self.capacity] = byte
        count += 1
    }

    mutating func removeFirst() -> UInt8? {
        guard count > 0 else { return nil }
        defer {
            first = (first + 1) % Self.capacity
            count -= 1
        }
        return bytes[first]
    }

    mutating func removeAll() {
        first = 0
        count = 0
    }
}
