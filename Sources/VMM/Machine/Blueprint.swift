package import Devices
internal import GuestMemory
package import Handover
package import KVM
package import Wire

/// The static part of a machine, fixed when it is powered on: what the next worker builds from while the guest still runs.
package struct Blueprint: Sendable, Equatable {
    package var machineID: MachineID
    package var name: String
    package var model: String
    package var vcpus: Int
    package var memory: Int
    package var pageSize: Int
    /// CPUID as set, one table for each vCPU.
    package var cpuid: [CPUIDTable]
    package var msrs: MSRPlan
    /// CPUs each vCPU may use; empty: no restriction.
    package var affinities: [[UInt64]]
    /// Device i is PCI function 00:(i + 1).0.
    package var devices: [DeviceSpecification]
    /// Where the guest has put each device's BARs by now; 0 for nowhere. No part of the machine, but what the next worker prepares for.
    package var placements: [[UInt64]] = []
    /// Where each device's interrupts lead by now, of those that are passed through. The same.
    package var messages: [[VectorMessage]] = []
    /// What of RAM is mapped for the DMA of passed-through devices, by the first worker for all that follow.
    package var dma: [DMAMapping] = []

    /// The version that is written: the oldest that has what there is to say.
    private var version: UInt16 {
        if messages.contains(where: { !$0.isEmpty }) { return 4 }
        return dma.isEmpty && placements.allSatisfy { $0.count == 1 } ? 2 : 3
    }

    /// Most messages that are written. What is not is set when the state comes.
    private static let mostMessages = 2048

    package func encode() -> [UInt8] {
        var writer = WireWriter(capacity: 16384)
        let version = version
        writer.u16(version)
        writer.machineID(machineID)
        writer.string(name)
        encodeShape(to: &writer)
        writer.u64(UInt64(pageSize))
        writer.list(affinities) { writer, mask in writer.list(mask) { $0.u64($1) } }
        if version == 2 {
            writer.list(placements) { $0.u64($1.first ?? 0) }
        } else {
            writer.list(placements) { writer, bars in writer.list(bars) { $0.u64($1) } }
            writer.list(dma) { writer, mapping in mapping.encode(to: &writer) }
        }
        if version == 4 { encodeMessages(to: &writer) }
        return writer.bytes
    }

    private func encodeMessages(to writer: inout WireWriter) {
        var room = Self.mostMessages
        writer.list(messages) { writer, all in
            writer.list(Array(all.prefix(room))) {
                $0.u16(UInt16(clamping: $1.vector))
                $0.u64($1.message.address)
                $0.u32($1.message.data)
            }
            room -= min(room, all.count)
        }
    }

    /// What the guest sees, and what is carried for it.
    func encodeShape(to writer: inout WireWriter) {
        writer.string(model)
        writer.u32(UInt32(vcpus))
        writer.u64(UInt64(memory))
        // Tables differ in a few leaves only: the first whole, of the others what is not in it.
        let first = cpuid.first?.entries ?? []
        writer.list(first) { Self.encode($1, to: &$0) }
        writer.list(Array(cpuid.dropFirst())) { writer, table in
            let changes = table.entries.enumerated().filter { $0.offset >= first.count || $0.element != first[$0.offset] }
            writer.u32(UInt32(table.entries.count))
            writer.list(changes) { writer, change in
                writer.u32(UInt32(change.offset))
                Self.encode(change.element, to: &writer)
            }
        }
        msrs.encode(to: &writer)
        DeviceSpecification.encode(devices, to: &writer)
    }

    package init(
        _ specification: StartSpecification, machineID: MachineID, cpuid: [CPUIDTable], msrs: MSRPlan
    ) {
        self.machineID = machineID
        name = specification.name
        model = specification.model
        vcpus = Int(specification.vcpus)
        memory = Int(specification.memory)
        pageSize = Int(specification.pageSize)
        self.cpuid = cpuid
        self.msrs = msrs
        affinities = specification.affinities
        devices = specification.devices
        dma = passedThrough.isEmpty ? [] : DMAMapping.all(of: GuestMemoryLayout(size: memory))
    }

    /// The devices that are passed through.
    var passedThrough: [VFIOSpecification] { devices.compactMap { if case .passthrough(let device) = $0 { device } else { nil } } }

    /// Reads a blueprint, whole and within bounds.
    package init(_ bytes: [UInt8]) throws(WireError) {
        var reader = WireReader(bytes)
        let version = try reader.u16()
        if !(2...4).contains(version) { throw .invalid(offset: 0, field: "the blueprint's version", value: UInt64(version)) }
        machineID = try reader.machineID()
        name = try reader.string(limit: 64)
        model = try reader.string(limit: 32)
        vcpus = Int(try reader.bounded(by: 1...MachineModel.maximumVCPUs, "the number of vCPUs"))
        let start = reader.offset
        let size = try reader.u64()
        guard size > 0, size % 4096 == 0, size <= MachineModel.maximumMemory else {
            throw .invalid(offset: start, field: "the size of RAM", value: size)
        }
        memory = Int(size)
        let first = try reader.list(limit: 256) { reader throws(WireError) in try Self.entry(&reader) }
        let others = try reader.list(limit: MachineModel.maximumVCPUs) { reader throws(WireError) in
            let count = Int(try reader.bounded(by: 0...256, "the number of CPUID entries"))
            var entries = Array(first.prefix(count))
            let changes = try reader.list(limit: 256) { reader throws(WireError) in
                (position: Int(try reader.bounded(by: 0...255, "the position of a CPUID entry")), entry: try Self.entry(&reader))
            }
            for change in changes {
                if change.position < entries.count { entries[change.position] = change.entry } else { entries.append(change.entry) }
            }
            return CPUIDTable(entries)
        }
        cpuid = [CPUIDTable(first)] + others
        if cpuid.count != vcpus { throw .invalid(offset: reader.offset, field: "the number of CPUID tables", value: UInt64(cpuid.count)) }
        msrs = try MSRPlan(from: &reader)
        devices = try DeviceSpecification.list(from: &reader)
        pageSize = Int(clamping: try reader.u64())
        affinities = try reader.list(limit: MachineModel.maximumVCPUs) { reader throws(WireError) in
            try reader.list(limit: 16) { reader throws(WireError) in try reader.u64() }
        }
        placements = try reader.list(limit: DeviceSpecification.limit) { reader throws(WireError) in
            version == 2 ? [try reader.u64()] : try reader.list(limit: 6) { reader throws(WireError) in try reader.u64() }
        }
        if version >= 3 { dma = try reader.list(limit: DMAMapping.limit) { reader throws(WireError) in try DMAMapping(from: &reader) } }
        if version == 4 {
            messages = try reader.list(limit: DeviceSpecification.limit) { reader throws(WireError) in
                try reader.list(limit: Self.mostMessages) { reader throws(WireError) in
                    VectorMessage(vector: Int(try reader.u16()), message: PCIMessage(address: try reader.u64(), data: try reader.u32()))
                }
            }
        }
        try reader.finish()
    }

    private static func encode(_ entry: CPUIDEntry, to writer: inout WireWriter) {
        for word in [entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx] { writer.u32(word) }
    }

    private static func entry(_ reader: inout WireReader) throws(WireError) -> CPUIDEntry {
        CPUIDEntry(
            function: try reader.u32(), index: try reader.u32(), flags: try reader.u32(),
            eax: try reader.u32(), ebx: try reader.u32(), ecx: try reader.u32(), edx: try reader.u32())
    }
}

extension WireReader {
    /// A 32-bit number within `range`.
    mutating func bounded(by range: ClosedRange<Int>, _ field: String) throws(WireError) -> UInt32 {
        let start = offset
        let value = try u32()
        if !range.contains(Int(value)) { throw .invalid(offset: start, field: field, value: UInt64(value)) }
        return value
    }
}
