internal import Devices
internal import LinuxSystem
internal import SystemPackage
internal import VFIO

/// A device of VFIO's with custody's eventfds, as its function uses it.
final class LiveDevice: PassthroughDevice {
    let device: VFIODevice
    /// One for each vector, and the first for INTx.
    let events: [SharedDescriptor]
    /// Signalled by KVM at the end of INTx, and what unmasks it at the device.
    let unmask: SharedDescriptor?
    let regions: [PassthroughRegion]
    private let address: String
    private let configuration: VFIORegion
    private let bars: [Int: VFIORegion]
    private let counts: [InterruptMode: Int]

    init(_ device: VFIODevice, address: String, events: [SharedDescriptor], unmask: SharedDescriptor?) throws(Errno) {
        self.device = device
        self.address = address
        self.events = events
        self.unmask = unmask
        _ = try device.information()  // some drivers of mediated devices count their interrupts only then
        configuration = try device.region(.configuration)
        var bars: [Int: VFIORegion] = [:]
        for index in 0..<6 {
            let region = try device.region(.bar(index))
            if region.size > 0 { bars[index] = region }
        }
        self.bars = bars
        regions = bars.keys.sorted().compactMap { index in bars[index].map { PassthroughRegion(index, $0) } }
        let hasLine = try device.interrupts(.intx).count > 0 && unmask != nil && !events.isEmpty
        counts = [
            .line: hasLine ? 1 : 0, .message: min(events.count, try device.interrupts(.msi).count),
            .extended: min(events.count, try device.interrupts(.msix).count),
        ]
    }

    func vectors(_ mode: InterruptMode) -> Int { counts[mode] ?? 0 }

    /// 1 for INTA# to 4, or 0.
    var interruptPin: Int { Int(readConfiguration(at: 0x3D, size: 1)) % 5 }

    func readConfiguration(at offset: Int, size: Int) -> UInt32 {
        (try? device.load(configuration, at: UInt64(offset), width: size)).map { UInt32(truncatingIfNeeded: $0) } ?? .max
    }

    func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) {
        do throws(Errno) { try device.store(UInt64(value), to: configuration, at: UInt64(offset), width: size) } catch {
            log("writing to its configuration space at \(offset)", error)
        }
    }

    // What has no such register, or is switched off, reads as ones and forgets, as on a PC.

    func read(bar: Int, at offset: Int, size: Int) -> UInt64 {
        guard let region = bars[bar] else { return .max }
        return (try? device.load(region, at: UInt64(offset), width: size)) ?? .max
    }

    func write(_ value: UInt64, bar: Int, at offset: Int, size: Int) {
        guard let region = bars[bar] else { return }
        try? device.store(value, to: region, at: UInt64(offset), width: size)
    }

    func arm(_ mode: InterruptMode, count: Int) -> Bool {
        guard let index = VFIOInterruptIndex(mode) else { return true }
        do throws(Errno) {
            try device.arm(index, Array(events.prefix(count)))
            if mode == .line {
                try device.unmaskINTx(by: unmask)
                // A line that was asserted all along may have made no edge for the host to notice: masked and unmasked it is looked at.
                try device.maskINTx()
                try device.unmaskINTx()
            }
            return true
        } catch {
            log("arming \(count) interrupts of kind \(index)", error)
            return false
        }
    }

    func disarm(_ mode: InterruptMode) {
        guard let index = VFIOInterruptIndex(mode), vectors(mode) > 0 else { return }
        // EINVAL: none of the kind is armed.
        do throws(Errno) { try device.disarm(index) } catch { if error != .invalidArgument { log("disarming interrupts of kind \(index)", error) } }
    }

    func unmaskLine() {
        do throws(Errno) { try device.unmaskINTx() } catch { log("unmasking its interrupt", error) }
    }

    /// A stretch of a BAR in this process, for a memory slot.
    func map(bar: Int, _ area: Range<UInt64>) throws(Errno) -> SharedMapping {
        guard let region = bars[bar], !area.isEmpty else { throw Errno.invalidArgument }
        return try device.map(region, area.lowerBound...area.upperBound - 1)
    }

    /// One line for the operator: this is never in the way of the guest.
    func log(_ what: String, _ error: Errno) {
        writeToStandardError("baton-vmm: passed-through device \(address): \(what): \(error)")
    }
}

extension VFIOInterruptIndex {
    fileprivate init?(_ mode: InterruptMode) {
        switch mode {
        case .none: return nil
        case .line: self = .intx
        case .message: self = .msi
        case .extended: self = .msix
        }
    }
}

extension PassthroughRegion {
    fileprivate init(_ index: Int, _ region: VFIORegion) {
        let mappable = region.isWritable ? region.mappable.map { $0.lowerBound..<$0.upperBound + 1 } : []
        self.init(index: index, size: region.size, mappable: mappable.filter { $0.lowerBound % 4096 == 0 && $0.upperBound % 4096 == 0 })
    }
}
