package import Wire

/// What a worker needs to know to power a machine on, beside the descriptors it was lent.
package struct StartSpecification: Sendable, Equatable {
    /// 16 bytes that name the machine in checkpoints, for good.
    package var machineID: [UInt8]
    package var name: String
    /// The guest-visible machine, `baton-1`.
    package var model: String
    package var vcpus: UInt32
    /// Bytes of guest RAM; the memfd `ram` has this size.
    package var memory: UInt64
    package var commandLine: String
    /// Alignment of the RAM mapping: 4 KiB, 2 MiB or 1 GiB.
    package var pageSize: UInt64
    /// Touch all of RAM before the guest starts.
    package var prefault: Bool
    /// CPUs each vCPU may use, one mask (64 CPUs per word) for each vCPU; empty: no restriction.
    package var affinities: [[UInt64]]
    /// Device i is PCI function 00:(i + 1).0.
    package var devices: [DeviceSpecification]

    package init(
        machineID: [UInt8], name: String, model: String = "baton-1", vcpus: UInt32, memory: UInt64, commandLine: String,
        pageSize: UInt64 = 4096, prefault: Bool = false, affinities: [[UInt64]] = [],
        devices: [DeviceSpecification] = []
    ) {
        self.machineID = machineID
        self.name = name
        self.model = model
        self.vcpus = vcpus
        self.memory = memory
        self.commandLine = commandLine
        self.pageSize = pageSize
        self.prefault = prefault
        self.affinities = affinities
        self.devices = devices
    }

    package init(from reader: inout WireReader) throws(WireError) {
        machineID = try reader.raw(16)
        name = try reader.string(limit: 64)
        model = try reader.string(limit: 32)
        vcpus = try reader.u32()
        memory = try reader.u64()
        commandLine = try reader.string(limit: 4096)
        pageSize = try reader.u64()
        prefault = try reader.bool()
        affinities = try reader.list(limit: 1024) { reader throws(WireError) in
            try reader.list(limit: 16) { reader throws(WireError) in try reader.u64() }
        }
        devices = try DeviceSpecification.list(from: &reader)
    }

    package func encode(to writer: inout WireWriter) {
        writer.raw(machineID)
        writer.string(name)
        writer.string(model)
        writer.u32(vcpus)
        writer.u64(memory)
        writer.string(commandLine)
        writer.u64(pageSize)
        writer.bool(prefault)
        writer.list(affinities) { writer, mask in writer.list(mask) { writer, word in writer.u64(word) } }
        DeviceSpecification.encode(devices, to: &writer)
    }
}
