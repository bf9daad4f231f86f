internal import Control
internal import Handover
internal import LinuxSystem

/// What passed-through devices ask of their machine's thread.
extension MachineController {
    /// Between two attempts to have a worker take over what its predecessor was charged for.
    private static let addressesInterval: Int64 = 10_000_000_000

    /// Has the worker take over addresses and accounting of the memory that devices reach. They go on whether it does or not, so a failure is told and
    /// tried again. Whether it did.
    @discardableResult
    func orderAddresses(_ worker: Worker) -> Bool {
        do {
            _ = try worker.order(.takeAddresses, within: host.configuration.answerDeadline)
            nextAddresses = nil
            return true
        } catch {
            let isNews = nextAddresses == nil
            nextAddresses = spec.passthroughDevices.isEmpty ? nil : SystemClock.monotonic() + Self.addressesInterval
            if isNews {
                let remedy = "prlimit --pid \(worker.pid) --memlock=\(MemoryLock.limit(spec, host: host))"
                let again =
                    nextAddresses == nil ? "" : "; tried again every 10 s, the devices go on meanwhile; to raise this worker's limit: \(remedy)"
                host.events.append(.warning, machine: spec.name, generation: Int(worker.generation), detail: "take-addresses: \(error)\(again)")
            }
            return false
        }
    }

    /// Tries again what did not go, when its time has come.
    func watchAddresses() {
        guard let next = nextAddresses, SystemClock.monotonic() >= next, let worker, worker.ended == nil else { return }
        if orderAddresses(worker) {
            host.events.append(.warning, machine: spec.name, generation: Int(worker.generation), detail: "take-addresses: done now")
        }
    }

    /// The host wants a device back, as when its driver is unbound: it waits until the machine has ended. Or a device has reported an error, about which
    /// its guest hears from the device itself, if at all.
    func watchDevices() {
        for device in resources.devices.passthrough.devices {
            if Self.hasFired(device.events.errors) {
                host.events.append(
                    .warning, machine: spec.name,
                    detail: "\(device.address) has reported an error that cannot be corrected (PCI Express AER); the host's kernel log says more")
            }
            if Self.hasFired(device.events.request), wantedBack.insert(device.index).inserted {
                host.events.append(.warning, machine: spec.name, detail: Self.request(device.address, spec.name))
                publish()
            }
        }
    }

    private static func hasFired(_ event: SharedDescriptor?) -> Bool {
        guard let event, let count = try? event.descriptor.read(upTo: 8) else { return false }
        return count.count == 8
    }

    /// What the host waits for, for `show`.
    var requests: [String] {
        resources.devices.passthrough.devices.filter { wantedBack.contains($0.index) }.map { Self.request($0.address, spec.name) }
    }

    private static func request(_ address: String, _ machine: String) -> String {
        "the host wants \(address) back and waits for it; it is released when the machine ends: baton stop \(machine)"
    }
}
