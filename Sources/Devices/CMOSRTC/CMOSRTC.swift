internal import Synchronization

/// The clock and its 128 bytes of memory at 0x70 and 0x71 (Motorola MC146818A), as little of it as an operating system needs to learn
/// the date at start.
///
/// The clock is the host's, in UTC, BCD and 24 hours; setting it has no effect. There are no alarms and no interrupts. Of the memory
/// registers 0x0E to 0x7F keep what is written to them, all zeros at first.
package final class CMOSRTC: Device, PortDevice {
    private static let indexPort: UInt16 = 0x70
    /// How long before a second's end the update-in-progress bit is set, in nanoseconds.
    private static let update: Int64 = 244_000

    package let ports: [ClosedRange<UInt16>] = [0x70...0x71]
    private let time: any TimeSource
    private let live = Mutex(CMOSRTCState())

    package init(time: any TimeSource) { self.time = time }

    package func read(port: UInt16) -> UInt8 {
        if port == Self.indexPort { return 0xFF }  // write-only
        let index = live.withLock { $0.index }
        switch index {
        case 0x00...0x09, CMOSRTCState.centuryRegister: return clock(index)
        case 0x0A: return 0x26 | (isUpdating ? 0x80 : 0)  // 32.768 kHz time base, rate 6
        case 0x0B: return 0x02  // 24 hours, BCD
        case 0x0C: return 0
        case 0x0D: return 0x80  // the battery is good
        default: return live.withLock { $0.memory[Int(index) - CMOSRTCState.firstByte] }
        }
    }

    package func write(_ value: UInt8, port: UInt16) {
        live.withLock { live in
            if port == Self.indexPort {
                live.index = value & 0x7F  // bit 7 would mask NMI
            } else if live.index >= CMOSRTCState.firstByte && live.index != CMOSRTCState.centuryRegister {
                live.memory[Int(live.index) - CMOSRTCState.firstByte] = value
            }
        }
    }

    private var isUpdating: Bool { time.wall() % 1_000_000_000 >= 1_000_000_000 - Self.update }

    private func clock(_ index: UInt8) -> UInt8 {
        let date = CivilDate(time.wall() / 1_000_000_000)
        let value =
            switch index {
            case 0x00: date.second
            case 0x02: date.minute
            case 0x04: date.hour
            case 0x06: date.weekday
            case 0x07: date.day
            case 0x08: date.month
            case 0x09: date.year % 100
            case CMOSRTCState.centuryRegister: date.year / 100
            default: 0  // alarms
            }
        return UInt8(truncatingIfNeeded: (value / 10) << 4 | (value % 10))
    }

    package func quiesce() {}
    package func resume() {}
    package func state() -> CMOSRTCState { live.withLock { $0 } }
    package func restore(_ state: CMOSRTCState) { live.withLock { $0 = state } }
}
