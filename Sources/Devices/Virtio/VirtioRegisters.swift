internal import Synchronization

/// The registers of a virtio device's transport (virtio 1.2 §4.1.4.3) and the state machine behind device_status (§3.1).
final class VirtioRegisters: Sendable {
    private struct Live {
        var status: VirtioStatus = []
        /// The driver has written 0 to device_status, and something was still in flight when that was last looked at.
        var isResetting = false
        var deviceFeatureSelect: UInt32 = 0
        var driverFeatureSelect: UInt32 = 0
        var driverFeatures: VirtioFeatures = []
        var queueSelect: UInt16 = 0
    }

    /// The most queues of a device; so many notification addresses fit into their page.
    static let maximumQueues = 1024

    let device: any VirtioDevice
    let queues: [Virtqueue]
    let interrupts: VirtioInterrupts
    let offered: VirtioFeatures
    private let live = Mutex(Live())

    init(_ device: any VirtioDevice, queues: [Virtqueue], interrupts: VirtioInterrupts) {
        precondition(queues.count <= Self.maximumQueues, "a device has at most 1024 queues")
        self.device = device
        self.queues = queues
        self.interrupts = interrupts
        offered = device.features.union(.transport)
    }

    /// Whether the driver has said DRIVER_OK.
    var isRunning: Bool { live.withLock { $0.status.contains(.driverOK) && !$0.isResetting } }

    func read(at offset: Int) -> UInt64 {
        live.withLock { live in
            switch offset {
            case Register.deviceFeatureSelect: return UInt64(live.deviceFeatureSelect)
            case Register.deviceFeature: return Self.half(offered, live.deviceFeatureSelect)
            case Register.driverFeatureSelect: return UInt64(live.driverFeatureSelect)
            case Register.driverFeature: return Self.half(live.driverFeatures, live.driverFeatureSelect)
            case Register.configurationVector: return UInt64(interrupts.configurationVector)
            case Register.queueCount: return UInt64(queues.count)
            case Register.status: return UInt64(status(&live).rawValue)
            case Register.generation: return UInt64(interrupts.generation)
            case Register.queueSelect: return UInt64(live.queueSelect)
            default: return selected(live).map { Self.read(at: offset, of: $0) } ?? 0
            }
        }
    }

    private static func read(at offset: Int, of queue: Virtqueue) -> UInt64 {
        let state = queue.state
        switch offset {
        case Register.queueSize: return UInt64(state.size)
        case Register.queueVector: return UInt64(state.vector)
        case Register.queueEnable: return state.isEnabled ? 1 : 0
        case Register.queueNotification: return UInt64(queue.index)
        case Register.descriptors: return state.descriptors
        case Register.descriptors + 4: return state.descriptors >> 32
        case Register.available: return state.available
        case Register.available + 4: return state.available >> 32
        case Register.used: return state.used
        case Register.used + 4: return state.used >> 32
        default: return 0
        }
    }

    private static func half(_ features: VirtioFeatures, _ select: UInt32) -> UInt64 {
        select < 2 ? features.rawValue >> UInt64(32 * select) & 0xFFFF_FFFF : 0
    }

    /// Accesses of another width than the register's are ignored; 64-bit registers take halves, too (§4.1.3.1).
    func write(_ value: UInt64, at offset: Int, size: Int) {
        live.withLock { live in
            switch (offset, size) {
            case (Register.status, 1): setStatus(VirtioStatus(rawValue: UInt8(truncatingIfNeeded: value)), &live)
            case _ where live.isResetting: break
            case (Register.deviceFeatureSelect, 4): live.deviceFeatureSelect = UInt32(truncatingIfNeeded: value)
            case (Register.driverFeatureSelect, 4): live.driverFeatureSelect = UInt32(truncatingIfNeeded: value)
            case (Register.driverFeature, 4): setFeatures(UInt32(truncatingIfNeeded: value), &live)
            case (Register.configurationVector, 2): interrupts.configurationVector = UInt16(truncatingIfNeeded: value)
            case (Register.queueSelect, 2): live.queueSelect = UInt16(truncatingIfNeeded: value)
            default: if let queue = selected(live) { write(value, at: offset, size: size, to: queue, live) }
            }
        }
    }

    private func write(_ value: UInt64, at offset: Int, size: Int, to queue: Virtqueue, _ live: borrowing Live) {
        let vector = interrupts.existing(UInt16(truncatingIfNeeded: value))
        if offset == Register.queueVector, size == 2 { return queue.configure { $0.vector = vector } }
        guard !queue.state.isEnabled else { return }  // what an enabled queue is made of stays
        switch (offset, size) {
        case (Register.queueSize, 2):
            let count = UInt16(truncatingIfNeeded: value)
            if count > 0, count & (count - 1) == 0, count <= queue.maximumSize { queue.configure { $0.size = count } }
        case (Register.queueEnable, 2):
            guard value & 0xFFFF == 1 else { return }
            queue.configure { $0.isEnabled = true }
            if live.status.contains(.driverOK) { queue.open(live.driverFeatures) }
        case (Register.descriptors..<Register.end, 4), (Register.descriptors..<Register.end, 8):
            queue.configure { state in
                switch offset & ~4 {
                case Register.descriptors: Self.set(&state.descriptors, value, offset, size)
                case Register.available: Self.set(&state.available, value, offset, size)
                default: Self.set(&state.used, value, offset, size)
                }
            }
        default: break
        }
    }

    private static func set(_ register: inout UInt64, _ value: UInt64, _ offset: Int, _ size: Int) {
        switch (offset % 8, size) {
        case (0, 8): register = value
        case (0, 4): register = register & ~0xFFFF_FFFF | value & 0xFFFF_FFFF
        case (4, 4): register = register & 0xFFFF_FFFF | value << 32
        default: break
        }
    }

    private func selected(_ live: borrowing Live) -> Virtqueue? {
        Int(live.queueSelect) < queues.count ? queues[Int(live.queueSelect)] : nil
    }

    /// Features are open until they were agreed on.
    private func setFeatures(_ value: UInt32, _ live: inout Live) {
        guard live.driverFeatureSelect < 2, !live.status.contains(.featuresOK) else { return }
        let shift = UInt64(32 * live.driverFeatureSelect)
        live.driverFeatures = VirtioFeatures(rawValue: live.driverFeatures.rawValue & ~(0xFFFF_FFFF << shift) | UInt64(value) << shift)
    }

    private func status(_ live: inout Live) -> VirtioStatus {
        if live.isResetting {
            if queues.contains(where: { $0.inFlight > 0 }) { return live.status.union(.acknowledge) }
            live.isResetting = false
            live.status = []
        }
        return interrupts.hasFailed ? live.status.union(.needsReset) : live.status
    }

    /// Bits are only ever added, but by a reset.
    private func setStatus(_ written: VirtioStatus, _ live: inout Live) {
        if written.isEmpty { return reset(&live) }
        _ = status(&live)  // a reset may be over
        if live.isResetting { return }
        var new = written.intersection(.driverBits).subtracting(live.status)
        if new.contains(.featuresOK), !live.driverFeatures.isSubset(of: offered) || !live.driverFeatures.contains(.version1) {
            new.remove(.featuresOK)
        }
        if !live.status.union(new).contains(.featuresOK) { new.remove(.driverOK) }
        live.status.formUnion(new)
        guard new.contains(.driverOK) else { return }
        for queue in queues { queue.open(live.driverFeatures) }
        device.activate(live.driverFeatures)
        for queue in queues { queue.doorbell.ring() }
    }

    private func reset(_ live: inout Live) {
        let status = live.status
        live = Live()
        live.isResetting = true
        live.status = status
        for queue in queues { queue.reset() }
        device.reset()
        interrupts.reset()
        _ = self.status(&live)
    }

    /// Held, drained and with every vCPU parked.
    var state: VirtioState {
        live.withLock { live in
            _ = status(&live)
            var state = VirtioState()
            state.status = live.status.rawValue
            state.hasFailed = interrupts.hasFailed
            state.deviceFeatureSelect = live.deviceFeatureSelect
            state.driverFeatureSelect = live.driverFeatureSelect
            state.driverFeatures = live.driverFeatures.rawValue
            state.queueSelect = live.queueSelect
            state.configurationVector = interrupts.configurationVector
            state.generation = interrupts.generation
            state.interruptStatus = interrupts.interruptStatus
            state.queues = queues.map(\.state)
            return state
        }
    }

    /// Takes over a state. A queue that cannot be opened fails the device.
    func restore(_ state: VirtioState) {
        live.withLock { live in
            live.status = VirtioStatus(rawValue: state.status)
            live.isResetting = false
            live.deviceFeatureSelect = state.deviceFeatureSelect
            live.driverFeatureSelect = state.driverFeatureSelect
            live.driverFeatures = VirtioFeatures(rawValue: state.driverFeatures)
            live.queueSelect = state.queueSelect
            interrupts.restore(state)
            for (queue, saved) in zip(queues, state.queues) { queue.restore(saved) }
            guard live.status.contains(.driverOK) else { return }
            for queue in queues { queue.open(live.driverFeatures) }
            device.activate(live.driverFeatures)
        }
    }
}

/// Offsets in the common configuration structure.
private enum Register {
    static let deviceFeatureSelect = 0x00
    static let deviceFeature = 0x04
    static let driverFeatureSelect = 0x08
    static let driverFeature = 0x0C
    static let configurationVector = 0x10
    static let queueCount = 0x12
    static let status = 0x14
    static let generation = 0x15
    static let queueSelect = 0x16
    static let queueSize = 0x18
    static let queueVector = 0x1A
    static let queueEnable = 0x1C
    static let queueNotification = 0x1E
    static let descriptors = 0x20
    static let available = 0x28
    static let used = 0x30
    static let end = 0x38
}
