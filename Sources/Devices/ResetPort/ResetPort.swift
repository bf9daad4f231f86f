internal import Synchronization

/// The two ways a PC's operating systems reset it: the keyboard controller's pulse command at 0x64, and the reset control register
/// of the chip set at 0xCF9.
///
/// There is no keyboard controller behind 0x64. Its status reads 0xFD: "output full" for ever, from which a driver concludes that
/// nobody is there, and "input empty", so that nobody waits before sending the reset command.
package final class ResetPort: Device, PortDevice {
    private static let keyboardPort: UInt16 = 0x64
    private static let pulseReset: UInt8 = 0xFE
    /// 0xCF9 bit 2: resets when it goes from 0 to 1.
    private static let resetBit: UInt8 = 0x04

    package let ports: [ClosedRange<UInt16>] = [0x64...0x64, 0xCF9...0xCF9]
    private let power: PowerDevice
    private let live = Mutex(ResetPortState())

    /// - Parameter power: takes the requests.
    package init(power: PowerDevice) { self.power = power }

    package func read(port: UInt16) -> UInt8 {
        port == Self.keyboardPort ? 0xFD : live.withLock { $0.control }
    }

    package func write(_ value: UInt8, port: UInt16) {
        if port == Self.keyboardPort {
            if value == Self.pulseReset { power.take(.reset) }
            return
        }
        let resets = live.withLock { live in
            let rises = value & ~live.control & Self.resetBit != 0
            live.control = value & 0x0E
            return rises
        }
        if resets { power.take(.reset) }
    }

    package func quiesce() {}
    package func resume() {}
    package func state() -> ResetPortState { live.withLock { $0 } }
    package func restore(_ state: ResetPortState) { live.withLock { $0 = state } }
}
