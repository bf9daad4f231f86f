/// Function 00:00.0, the bridge to bus 0: to be found, no more.
package final class HostBridge: PCIFunction {
    package let endpoint: PCIEndpoint

    package init() {
        // The generic PCI Express host bridge that every guest knows: Red Hat's id 0008.
        let identity = PCIIdentity(vendor: 0x1B36, device: 0x0008, subsystemVendor: 0x1AF4, subsystem: 0x1100, classCode: 0x06_0000)
        endpoint = PCIEndpoint(identity, regions: [], messages: nil)
    }

    package var windows: [MMIOWindow] { [] }
    package var fixedConfiguration: [UInt8] { endpoint.fixedConfiguration }
    package func readConfiguration(at offset: Int, size: Int) -> UInt32 { endpoint.readConfiguration(at: offset, size: size) }
    package func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) { endpoint.writeConfiguration(value, at: offset, size: size) }
    package func placeBars(with allocator: inout PCIBarAllocator) {}
}
