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

/// The power port of model `baton-1` at 0x604.
///
/// Writing 1 switches the machine off, 2 resets it. Reading bit 0 tells that the operator asks the guest to switch itself off. The
/// first request stands until the machine has followed it, across a handover too.
package final class PowerDevice: Device, PortDevice {
    package let ports: [ClosedRange<UInt16>] = [0x604...0x604]
    private let observer: any PowerObserver
    private let live = Mutex(PowerState())

    package init(observer: any PowerObserver) { self.observer = observer }

    /// What the guest has asked for and not got yet.
    package var request: PowerRequest? { live.withLock { $0.request } }

    /// The operator asks the guest to switch itself off.
    package func askForPowerOff() { live.withLock { $0.operatorAsks = true } }

    /// Takes a request from another way to ask. Only the first one is told to the observer.
    package func take(_ request: PowerRequest) {
        let isFirst = live.withLock { live in
            if live.request != nil { return false }
            live.request = request
            return true
        }
        if isFirst { observer.guestRequested(request) }
    }

    package func read(port: UInt16) -> UInt8 { live.withLock { $0.operatorAsks ? 1 : 0 } }

    package func write(_ value: UInt8, port: UInt16) {
        if let request = PowerRequest(rawValue: value) { take(request) }
    }

    package func quiesce() {}
    package func resume() {}
    package func state() -> PowerState { live.withLock { $0 } }
    package func restore(_ state: PowerState) { live.withLock { $0 = state } }
}
