internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

extension Machine {
    /// Maps all of RAM for the DMA of passed-through devices. At power-on, once RAM is empty: what is mapped is pinned, and discarding it later
    /// would leave devices with pages that the guest does not have.
    func mapForDMA(_ ram: SharedDescriptor) throws(VMMError) {
        for space in dmaSpaces { try space.map(blueprint.dma, of: ram, memory) }
        associate()
    }

    /// Takes over what an earlier worker has mapped. The guest runs and so do its devices.
    func takeAddresses() throws(VMMError) {
        let peers = devices.functions.passedThrough.flatMap(\.host.shared)
        for space in dmaSpaces { try space.take(blueprint.dma, memory, peers) }
        associate()
    }

    /// Tells KVM of the devices, which has to know whether their DMA is coherent. Not before the guest is ours: what a device says of its
    /// VM is the same for everybody who has it open.
    private func associate() {
        let devices = devices.functions.passedThrough
        if devices.isEmpty || association.isMade { return }
        do throws(Errno) {
            let made = try vm.createVFIOAssociation()
            for device in devices {
                // Devices of one group are one file.
                do throws(Errno) { try made.add(device.association.descriptor) } catch { if error != .fileExists { throw error } }
            }
            association.keep(made)
        } catch {
            writeToStandardError("baton-vmm: telling KVM of the devices that are passed through: \(error)")
        }
    }
}

/// What KVM has been told of a machine's devices, if anything.
final class Association: Sendable {
    private let made = Mutex<VFIOAssociation?>(nil)

    var isMade: Bool { made.withLock { $0 != nil } }
    func keep(_ association: VFIOAssociation) { made.withLock { $0 = association } }
}
