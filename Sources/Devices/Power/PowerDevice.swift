internal import Synchronization

/// What a guest can ask of its machine.
package enum PowerRequest: UInt8, Sendable, Equatable {
    case powerOff = 1
    case reset = 2
}

/// Who is told when a guest asks for power-off or reset.
package protocol PowerObserver: AnyObject, Sendable {
    /// Called on the vCPU's thread that asked, inside the port access.
    func guestRequested(_ request: PowerRequest)
}

/// The power management registers of model `baton-1` (ACPI 6.5, section 4.8.3): PM1 status and enable at 0x600 and 0x602, PM1 control
/// at 0x604, 16 bits each.
///
/// It is in ACPI mode always. The power button, which the operator presses, is the only event; while it is pressed and enabled the
/// system control interrupt is high. Sleep type 5 with SLP_EN switches the machine off, other sleep types do nothing. The first request
/// stands until the machine has followed it, across a handover too.
package final class PowerDevice: Device, PortDevice {
    private static let base: UInt16 = 0x600
    /// The high byte of PM1 control.
    private static let sleepPort: UInt16 = 0x605
    /// SLP_EN and SLP_TYP in the high byte.
    private static let sleepEnable: UInt8 = 0x20
    private static let sleepType: UInt8 = 0x1C
    private static let softOff: UInt8 = 5 << 2
    /// SCI_EN.
    private static let acpiMode: UInt16 = 1

    package let ports: [ClosedRange<UInt16>] = [0x600...0x605]
    private let observer: any PowerObserver
    private let interrupt: InterruptLine
    private let live = Mutex(PowerState())

    /// - Parameter interrupt: the system control interrupt.
    package init(observer: any PowerObserver, interrupt: InterruptLine) {
        self.observer = observer
        self.interrupt = interrupt
    }

    /// What the guest has asked for and not got yet.
    package var request: PowerRequest? { live.withLock { $0.request } }

    /// Presses the power button: the operator asks the guest to switch itself off.
    package func askForPowerOff() {
        live.withLock { live in
            live.status |= PowerState.powerButton
            updateInterrupt(live)
        }
    }

    /// Takes a request from another way to ask. Only the first one is told to the observer.
    package func take(_ request: PowerRequest) {
        let isFirst = live.withLock { live in
            if live.request != nil { return false }
            live.request = request
            return true
        }
        if isFirst { observer.guestRequested(request) }
    }

    package func read(port: UInt16) -> UInt8 {
        live.withLock { live in
            let register =
                switch (port - Self.base) / 2 {
                case 0: live.status
                case 1: live.enable
                default: live.control | Self.acpiMode
                }
            return UInt8(truncatingIfNeeded: register >> Self.shift(port))
        }
    }

    package func write(_ value: UInt8, port: UInt16) {
        let bits = UInt16(value) << Self.shift(port)
        let lane = UInt16(0xFF) << Self.shift(port)
        live.withLock { live in
            switch (port - Self.base) / 2 {
            case 0: live.status &= ~bits  // writing ones clears
            case 1: live.enable = live.enable & ~lane | bits & PowerState.enableBits
            default: live.control = live.control & ~lane | bits & PowerState.controlBits
            }
            updateInterrupt(live)
        }
        if port == Self.sleepPort, value & Self.sleepEnable != 0, value & Self.sleepType == Self.softOff { take(.powerOff) }
    }

    private static func shift(_ port: UInt16) -> UInt16 { port % 2 * 8 }

    /// Sets the interrupt's level, under the lock: else an older level could come last.
    private func updateInterrupt(_ live: PowerState) {
        if live.status & live.enable != 0 { interrupt.raise() } else { interrupt.lower() }
    }

    package func quiesce() {}
    package func resume() {}
    package func state() -> PowerState { live.withLock { $0 } }
    package func restore(_ state: PowerState) { live.withLock { $0 = state } }
}
