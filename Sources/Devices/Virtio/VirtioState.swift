package import Checkpoint
package import Wire

/// The stored state of the transport of a virtio device: its registers and its queues.
package struct VirtioState: Sendable, Equatable {
    /// As the driver has set it; DEVICE_NEEDS_RESET is ``hasFailed``.
    package var status: UInt8 = 0
    package var hasFailed = false
    package var deviceFeatureSelect: UInt32 = 0
    package var driverFeatureSelect: UInt32 = 0
    package var driverFeatures: UInt64 = 0
    package var queueSelect: UInt16 = 0
    /// MSI-X vector for changes of the configuration; 0xFFFF for none.
    package var configurationVector: UInt16 = .max
    package var generation: UInt8 = 0
    package var interruptStatus: UInt8 = 0
    package var queues: [VirtqueueState] = []

    package init() {}
}

extension VirtioState: DeviceState {
    package static let section = SectionRange("virtio", writes: 1...1, reads: 1...1)

    package func encode(to writer: inout WireWriter, version: UInt16) {
        writer.u8(status)
        writer.bool(hasFailed)
        writer.u32(deviceFeatureSelect)
        writer.u32(driverFeatureSelect)
        writer.u64(driverFeatures)
        writer.u16(queueSelect)
        writer.u16(configurationVector)
        writer.u8(generation)
        writer.u8(interruptStatus)
        writer.list(queues) { $1.encode(to: &$0) }
    }

    package init(from reader: inout WireReader, version: UInt16) throws(WireError) {
        status = try reader.register("device_status", allowing: VirtioStatus.driverBits.rawValue)
        hasFailed = try reader.bool()
        deviceFeatureSelect = try reader.u32()
        driverFeatureSelect = try reader.u32()
        driverFeatures = try reader.u64()
        queueSelect = try reader.u16()
        configurationVector = try reader.u16()
        generation = try reader.u8()
        interruptStatus = try reader.register("ISR", allowing: 3)
        queues = try reader.list(limit: VirtioRegisters.maximumQueues) { reader throws(WireError) in try VirtqueueState(from: &reader) }
    }
}

/// The bits of device_status (virtio 1.2 §2.1).
struct VirtioStatus: OptionSet, Sendable {
    let rawValue: UInt8

    static let acknowledge = VirtioStatus(rawValue: 1)
    static let driver = VirtioStatus(rawValue: 2)
    static let driverOK = VirtioStatus(rawValue: 4)
    static let featuresOK = VirtioStatus(rawValue: 8)
    static let needsReset = VirtioStatus(rawValue: 0x40)
    static let failed = VirtioStatus(rawValue: 0x80)

    /// What a driver can set.
    static let driverBits: VirtioStatus = [.acknowledge, .driver, .driverOK, .featuresOK, .failed]
}
