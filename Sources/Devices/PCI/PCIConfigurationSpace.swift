/// What a function says it is (PCI Local Bus 3.0 §6.2.1).
package struct PCIIdentity: Sendable, Equatable {
    package var vendor: UInt16
    package var device: UInt16
    package var subsystemVendor: UInt16
    package var subsystem: UInt16
    package var revision: UInt8
    /// Class, subclass and programming interface: 0xCCSSPP.
    package var classCode: UInt32

    package init(vendor: UInt16, device: UInt16, subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0, revision: UInt8 = 0, classCode: UInt32) {
        self.vendor = vendor
        self.device = device
        self.subsystemVendor = subsystemVendor
        self.subsystem = subsystem
        self.revision = revision
        self.classCode = classCode
    }
}

/// A base address register: a power of two of memory that a function answers where the guest puts it.
package struct PCIBar: Sendable, Equatable {
    /// 0…5; a 64-bit one takes the next, too.
    package let index: Int
    /// Bytes, a power of two, at least 16.
    package let size: UInt64
    package let is64Bit: Bool
    package let isPrefetchable: Bool

    package init(index: Int, size: UInt64, is64Bit: Bool = false, isPrefetchable: Bool = false) {
        precondition(size >= 16 && size & (size - 1) == 0, "a BAR's size is a power of two")
        precondition((0...(is64Bit ? 4 : 5)).contains(index), "there are six BARs")
        self.index = index
        self.size = size
        self.is64Bit = is64Bit
        self.isPrefetchable = isPrefetchable
    }

    var register: Int { PCIRegister.bars + 4 * index }
}

/// Offsets in a type 0 header.
enum PCIRegister {
    static let vendor = 0x00
    static let device = 0x02
    static let command = 0x04
    static let status = 0x06
    static let revision = 0x08
    static let cacheLineSize = 0x0C
    static let bars = 0x10
    static let subsystemVendor = 0x2C
    static let subsystem = 0x2E
    static let capabilities = 0x34
    static let interruptLine = 0x3C
    static let interruptPin = 0x3D
    static let firstCapability = 0x40
}

/// The command register's bits that a function of ours has.
package struct PCICommand: OptionSet, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let memory = PCICommand(rawValue: 1 << 1)
    package static let busMaster = PCICommand(rawValue: 1 << 2)
    package static let parityErrorResponse = PCICommand(rawValue: 1 << 6)
    package static let systemError = PCICommand(rawValue: 1 << 8)
    package static let interruptDisable = PCICommand(rawValue: 1 << 10)

    static let all: PCICommand = [.memory, .busMaster, .parityErrorResponse, .systemError, .interruptDisable]
}

/// 256 bytes of configuration space with a type 0 header, and which of their bits the guest can write.
///
/// Sizing a BAR is not a special case: the bits below its size cannot be written.
package struct PCIConfigurationSpace: Sendable {
    package static let size = 256

    private var bytes = [UInt8](repeating: 0, count: size)
    private var writable = [UInt8](repeating: 0, count: size)
    private var lastCapability: Int?
    private var end = PCIRegister.firstCapability
    private let bars: [PCIBar]

    package init(_ identity: PCIIdentity, bars: [PCIBar] = []) {
        self.bars = bars
        set(UInt32(identity.vendor) | UInt32(identity.device) << 16, at: PCIRegister.vendor, writable: 0)
        set(0, at: PCIRegister.command, writable: UInt32(PCICommand.all.rawValue))
        set(UInt32(identity.revision) | identity.classCode << 8, at: PCIRegister.revision, writable: 0)
        set(0, at: PCIRegister.cacheLineSize, writable: 0xFF)
        set(UInt32(identity.subsystemVendor) | UInt32(identity.subsystem) << 16, at: PCIRegister.subsystemVendor, writable: 0)
        set(0, at: PCIRegister.interruptLine, writable: 0xFF)
        setBars()
    }

    /// The space of a function that is not ours: its bytes, and which bits of them the guest can write. BARs are put in.
    ///
    /// - Parameters:
    ///   - bytes: 256 of them, as are `writable`.
    ///   - bars: over what `bytes` has in their places.
    init(bytes: [UInt8], writable: [UInt8], bars: [PCIBar]) {
        precondition(bytes.count == Self.size && writable.count == Self.size, "a configuration space has 256 bytes")
        self.bytes = bytes
        self.writable = writable
        self.bars = bars
        setBars()
    }

    private mutating func setBars() {
        for bar in bars {
            let mask = ~(bar.size - 1)
            let flags: UInt32 = (bar.is64Bit ? 4 : 0) | (bar.isPrefetchable ? 8 : 0)
            set(flags, at: bar.register, writable: UInt32(truncatingIfNeeded: mask))
            if bar.is64Bit { set(0, at: bar.register + 4, writable: UInt32(truncatingIfNeeded: mask >> 32)) }
        }
    }

    private mutating func set(_ value: UInt32, at offset: Int, writable mask: UInt32) {
        for index in 0..<4 {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            writable[offset + index] = UInt8(truncatingIfNeeded: mask >> UInt32(8 * index))
        }
    }

    /// Appends a capability (§6.7) and returns its offset.
    ///
    /// - Parameters:
    ///   - body: what follows its id and the pointer to the next one.
    ///   - mask: which bits of the body can be written; missing bytes none.
    package mutating func addCapability(_ id: UInt8, _ body: [UInt8], writable mask: [UInt8] = []) -> Int {
        let start = end
        precondition(start + 2 + body.count <= Self.size, "the configuration space is full")
        bytes[start] = id
        for (index, byte) in body.enumerated() {
            bytes[start + 2 + index] = byte
            writable[start + 2 + index] = index < mask.count ? mask[index] : 0
        }
        if let lastCapability { bytes[lastCapability + 1] = UInt8(start) } else { bytes[PCIRegister.capabilities] = UInt8(start) }
        bytes[PCIRegister.status] |= 0x10
        lastCapability = start
        end = (start + 2 + body.count + 3) & ~3
        return start
    }

    /// Reads 1, 2 or 4 bytes; beyond the end they are 0.
    package func read(at offset: Int, size: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in 0..<size where offset + index < Self.size { value |= UInt32(bytes[offset + index]) << UInt32(8 * index) }
        return value
    }

    /// Writes 1, 2 or 4 bytes as the guest does; bits that cannot be written stay.
    package mutating func write(_ value: UInt32, at offset: Int, size: Int) {
        for index in 0..<size where offset + index < Self.size {
            let mask = writable[offset + index]
            let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            bytes[offset + index] = bytes[offset + index] & ~mask | byte & mask
        }
    }

    package var command: PCICommand { PCICommand(rawValue: UInt16(truncatingIfNeeded: read(at: PCIRegister.command, size: 2))) }

    /// Where the guest has put a BAR; nil while memory accesses are disabled.
    package func address(of bar: PCIBar) -> UInt64? {
        guard command.contains(.memory) else { return nil }
        let address = base(of: bar)
        // The end of the address space is where a BAR is while it is being sized.
        return address > .max - bar.size || !bar.is64Bit && address + bar.size >= 1 << 32 ? nil : address
    }

    /// What is in a BAR's address bits.
    package func base(of bar: PCIBar) -> UInt64 {
        let low = UInt64(read(at: bar.register, size: 4) & ~0xF)
        return bar.is64Bit ? low | UInt64(read(at: bar.register + 4, size: 4)) << 32 : low
    }

    /// Puts a BAR somewhere, as firmware does.
    package mutating func place(_ bar: PCIBar, at address: UInt64) {
        write(UInt32(truncatingIfNeeded: address), at: bar.register, size: 4)
        if bar.is64Bit { write(UInt32(truncatingIfNeeded: address >> 32), at: bar.register + 4, size: 4) }
    }

    /// The bytes of which the guest can write any bit, ascending: all that changes.
    package var changeable: [UInt8] {
        get {
            var result: [UInt8] = []
            result.reserveCapacity(64)
            for index in 0..<Self.size where writable[index] != 0 { result.append(bytes[index]) }
            return result
        }
        set {
            var next = newValue.startIndex
            for index in 0..<Self.size where writable[index] != 0 && next < newValue.endIndex {
                write(UInt32(newValue[next]), at: index, size: 1)
                next += 1
            }
        }
    }

    /// Whether `saved` can have been ``changeable`` of this space: as long, and different in no bit that cannot be written.
    package func accepts(changeable saved: [UInt8]) -> Bool {
        var next = saved.makeIterator()
        for index in 0..<Self.size where writable[index] != 0 {
            guard let byte = next.next(), (byte ^ bytes[index]) & ~writable[index] == 0 else { return false }
        }
        return next.next() == nil
    }

    /// Everything that never changes, for fingerprints: all bytes with the changeable bits left out, and which bits those are.
    package var fixed: [UInt8] { zip(bytes, writable).map { $0 & ~$1 } + writable }
}
