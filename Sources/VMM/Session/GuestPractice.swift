internal import Checkpoint
internal import LinuxSystem

/// What the outgoing worker's practice has saved, in the second half of the checkpoint's memory, where nobody who loads a checkpoint looks. It is for the
/// incoming worker's practice, and may be as old as it likes: what it gives a vCPU is compared with what is to be restored.
enum GuestPractice {
    private static func start(in memory: SharedMapping) -> Int { memory.length / 2 & ~4095 }

    /// Leaves it out where it does not fit.
    static func leave(_ checkpoint: [UInt8], in memory: SharedMapping) {
        let start = start(in: memory)
        if checkpoint.count <= memory.length - start { memory.copyIn(checkpoint.span, at: start) }
    }

    /// - Parameters:
    ///   - memory: which the other worker can still write to; what is taken is a private copy.
    ///   - identity: who must have left it.
    ///   - understood: the sections that are read here.
    /// - Returns: the state of so many vCPUs; `nil` where that worker has left none.
    /// - Throws: where what it has left cannot be read.
    static func take(
        from memory: SharedMapping, of identity: CheckpointIdentity, vcpus: Int, understanding understood: [SectionRange]
    ) throws(VMMError) -> [VCPUState]? {
        let start = start(in: memory)
        let room = memory.length - start
        guard room >= CheckpointFormat.headerLength,
            let header = try? CheckpointHeader(judging: memory.copyOut(at: start, count: CheckpointFormat.headerLength)),
            header.machine == identity.machine, header.generation == identity.generation, header.totalLength <= room
        else { return nil }
        let bytes = memory.copyOut(at: start, count: header.totalLength)
        return try doing("the state that the outgoing worker's practice has left") { () throws(CheckpointError) in
            let reader = try CheckpointReader(bytes, expecting: identity, understanding: understood)
            return try (0..<vcpus).map { index throws(CheckpointError) in try reader.vcpu(index) }
        }
    }
}
