internal import GuestMemory
internal import LinuxSystem
internal import SystemPackage

/// Why a request was not done.
enum BlockFailure: Error {
    /// Not within the disk, not whole sectors, or more than the disk said it takes; or it is read-only.
    case invalid
    /// A kind or flag that this disk does not know.
    case unsupported
    /// The storage could not do it.
    case storage(Errno)
}

extension VirtioBlock {
    /// Performs a request on a thread of the disk's.
    func perform(_ request: BlockRequest) -> BlockStatus {
        do throws(BlockFailure) {
            guard let operation = request.operation else { throw .unsupported }
            switch operation {
            case .read: try read(request)
            case .write: try write(request)
            case .flush: try onStorage { () throws(Errno) in try disk.flush() }
            case .identify: identify(request)
            case .discard, .writeZeroes: try clear(request, operation)
            }
            return .done
        } catch {
            switch error {
            case .invalid: return .failed
            case .unsupported: return .unsupported
            case .storage(let errno):
                reportOnce(errno)
                return .failed
            }
        }
    }

    private func read(_ request: BlockRequest) throws(BlockFailure) {
        let position = try request.position(of: request.incoming, size: size)
        let list = request.incoming
        try onStorage { () throws(Errno) in try disk.read(into: list, at: position) }
    }

    private func write(_ request: BlockRequest) throws(BlockFailure) {
        if disk.isReadOnly { throw .invalid }
        let position = try request.position(of: request.outgoing, size: size)
        let list = request.outgoing
        try change { () throws(Errno) in try disk.write(from: list, at: position) }
    }

    /// The serial number, ended by a zero byte if it is shorter than the field.
    private func identify(_ request: BlockRequest) {
        let field = serial + [UInt8](repeating: 0, count: BlockLimits.serial - serial.count)
        request.incoming.store(Array(field.prefix(request.incoming.count)), at: 0)
    }

    private func clear(_ request: BlockRequest, _ operation: BlockOperation) throws(BlockFailure) {
        if disk.isReadOnly { throw .invalid }
        let discards = operation == .discard
        for range in try request.ranges(size: size, limit: discards ? BlockLimits.discardSectors : BlockLimits.zeroSectors) {
            if range.bytes.isEmpty { continue }
            try change { () throws(Errno) in
                if discards { try disk.discard(range.bytes) } else { try disk.writeZeroes(range.bytes, mayUnmap: range.mayUnmap) }
            }
        }
    }

    /// Something that changes the disk: on stable storage when it ends, unless the driver has promised to flush.
    private func change(_ body: () throws(Errno) -> Void) throws(BlockFailure) {
        try onStorage { () throws(Errno) in
            try body()
            if writesThrough { try disk.flush() }
        }
    }

    private func onStorage(_ body: () throws(Errno) -> Void) throws(BlockFailure) {
        do { try body() } catch { throw .storage(error) }
    }
}
