package import Wire

/// Section `machine`: what is true of the machine as a whole at the moment it was saved.
package struct MachineState: Sendable, Equatable {
    /// Of the machine that was saved; the one it is restored to must have the same.
    package var fingerprint: [UInt8]
    package var vcpus: UInt32
    package var memory: UInt64
    /// An operator had paused it: restored, it does not run either.
    package var isPaused: Bool
    /// The guest had switched itself off or asked for a reset, and nobody had been told yet.
    package var ending: Ending

    package enum Ending: UInt8, Sendable { case none = 0, powerOff = 1, reset = 2 }

    package init(fingerprint: [UInt8], vcpus: UInt32, memory: UInt64, isPaused: Bool, ending: Ending) {
        self.fingerprint = fingerprint
        self.vcpus = vcpus
        self.memory = memory
        self.isPaused = isPaused
        self.ending = ending
    }

    /// Version 1.
    package func encode(to writer: inout WireWriter) {
        writer.blob(fingerprint)
        writer.u32(vcpus)
        writer.u64(memory)
        writer.bool(isPaused)
        writer.u8(ending.rawValue)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        fingerprint = try reader.blob(limit: 64)
        vcpus = try reader.u32()
        memory = try reader.u64()
        isPaused = try reader.bool()
        let start = reader.offset
        let raw = try reader.u8()
        guard let ending = Ending(rawValue: raw) else { throw .invalid(offset: start, field: "how the guest ended", value: UInt64(raw)) }
        self.ending = ending
    }
}
