/// BAR 0 of a virtio device.
final class VirtioWindow: MMIODevice {
    private typealias Layout = VirtioPCIFunction.Layout

    private let registers: VirtioRegisters
    private let messages: MSIXTable

    init(_ registers: VirtioRegisters, _ messages: MSIXTable) {
        self.registers = registers
        self.messages = messages
    }

    func read(at offset: Int, size: Int) -> UInt64 {
        let place = offset % Int(Layout.page)
        switch UInt32(offset - place) {
        case Layout.common: return registers.read(at: place)
        case Layout.interruptStatus: return place == 0 ? UInt64(registers.interrupts.takeStatus()) : 0
        case Layout.configuration: return readConfiguration(at: place, size: size)
        case Layout.messages: return messages.readTable(at: place, size: size)
        case Layout.pending: return messages.readPending(at: place, size: size)
        default: return 0
        }
    }

    func write(_ value: UInt64, at offset: Int, size: Int) {
        let place = offset % Int(Layout.page)
        switch UInt32(offset - place) {
        case Layout.common: registers.write(value, at: place, size: size)
        case Layout.configuration: registers.device.writeConfiguration(littleEndian(value).dropLast(8 - size), at: place)
        case Layout.notification:
            let queue = place / Int(Layout.notificationStride)
            if queue < registers.queues.count { registers.queues[queue].doorbell.ring() }
        case Layout.messages: messages.writeTable(value, at: place, size: size)
        default: break
        }
    }

    private func readConfiguration(at offset: Int, size: Int) -> UInt64 {
        var value: UInt64 = 0
        for (index, byte) in registers.device.configuration().dropFirst(offset).prefix(size).enumerated() {
            value |= UInt64(byte) << UInt64(8 * index)
        }
        return value
    }

    /// What the driver can find out and what never changes: features offered and queue sizes.
    var fixed: [UInt8] { littleEndian(registers.offered.rawValue) + registers.device.queueSizes.flatMap { littleEndian($0) } }
}

extension PCIIdentity {
    /// §4.1.2: modern devices have ids from 0x1040.
    init(virtio kind: VirtioKind) {
        let classCode: UInt32 =
            switch kind {
            case .network: 0x02_0000
            case .block: 0x01_8000
            case .console: 0x07_8000
            case .entropy: 0xFF_0000
            }
        self.init(
            vendor: 0x1AF4, device: 0x1040 + kind.rawValue, subsystemVendor: 0x1AF4, subsystem: 0x1040 + kind.rawValue, revision: 1,
            classCode: classCode)
    }
}

extension PCIConfigurationSpace {
    /// The structures' places (§4.1.4). Returns the offset of the access capability.
    mutating func addVirtioCapabilities(queues: Int) -> Int {
        typealias Layout = VirtioPCIFunction.Layout
        add(type: 1, Layout.common, Layout.commonSize)
        add(type: 2, Layout.notification, Layout.notificationStride * UInt32(queues), more: littleEndian(Layout.notificationStride))
        add(type: 3, Layout.interruptStatus, 1)
        add(type: 4, Layout.configuration, Layout.page)
        let all = [UInt8](repeating: 0xFF, count: 4)
        return add(type: 5, 0, 0, more: [0, 0, 0, 0], writable: [0, 0, 0xFF, 0, 0, 0] + all + all)
    }

    @discardableResult
    private mutating func add(type: UInt8, _ offset: UInt32, _ length: UInt32, more: [UInt8] = [], writable: [UInt8] = []) -> Int {
        let size = UInt8(16 + more.count)
        return addCapability(9, [size, type, 0, 0, 0, 0] + littleEndian(offset) + littleEndian(length) + more, writable: writable)
    }
}
