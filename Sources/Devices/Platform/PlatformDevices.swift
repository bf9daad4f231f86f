package import SystemPackage

/// The devices of model `baton-1`, on one bus and with one thread.
///
/// They begin quiesced. ``resume()`` starts them, at power-on as after a handover; ``quiesce(timeout:)`` and ``resume()`` may follow one
/// another any number of times. A handover calls `quiesce` as the last of *settle*, `state()` when the vCPUs are parked too, and either
/// `resume` here (abort) or `restore` and `resume` in the incoming worker, after the grant.
package final class PlatformDevices: Sendable {
    package let bus: PortBus
    package let serial: Serial8250
    package let pit: PIT8254
    package let power: PowerDevice
    package let resetPort: ResetPort
    package let rtc: CMOSRTC
    private let thread: DeviceThread

    /// - Parameters:
    ///   - name: of the device thread.
    ///   - console: the far end of COM1.
    ///   - wide: devices behind other ports, which see accesses whole.
    package init(
        name: String, interrupts: any InterruptController, power observer: any PowerObserver, console: Console, time: any TimeSource = HostTime(),
        wide: [any WidePortDevice] = []
    ) throws(Errno) {
        let timer = try HostTimer()
        serial = Serial8250(interrupt: InterruptLine(4, of: interrupts), sink: console, time: time)
        pit = PIT8254(interrupt: InterruptLine(0, of: interrupts), time: time, timer: timer)
        power = PowerDevice(observer: observer, interrupt: InterruptLine(9, of: interrupts))
        resetPort = ResetPort(power: power)
        rtc = CMOSRTC(time: time)
        bus = PortBus([serial, pit, power, resetPort, rtc], wide: wide)
        thread = try DeviceThread(name: name, sources: [TickSource(timer, pit), ConsolePump(console, serial)])
        serial.setChangeHandler { [thread] in thread.wake() }
    }

    /// Starts the device thread, parked. Part of *prepare*: later steps then start no thread.
    package func start() throws(Errno) { try thread.start() }

    /// Stops the devices acting on their own; `false` when the thread did not park in time (then `resume` and abort).
    package func quiesce(timeout: Duration) -> Bool {
        pit.quiesce()
        serial.quiesce()
        return thread.park(timeout: timeout)
    }

    /// Lets the devices act on their own.
    package func resume() {
        serial.resume()
        pit.resume()
        thread.run()
    }

    /// The state of all devices, quiesced and with every vCPU parked.
    package func state() -> PlatformState {
        serial.quiesce()  // what the guest sent since settle
        var state = PlatformState()
        state.serial = serial.state()
        state.pit = pit.state()
        state.power = power.state()
        state.resetPort = resetPort.state()
        state.rtc = rtc.state()
        return state
    }

    /// Takes over a state. Only before the first `resume` or while quiesced.
    package func restore(_ state: PlatformState) {
        serial.restore(state.serial)
        pit.restore(state.pit)
        power.restore(state.power)
        resetPort.restore(state.resetPort)
        rtc.restore(state.rtc)
    }

    /// Ends the device thread.
    package func finish() {
        thread.finish()
        serial.setChangeHandler(nil)
    }
}
