internal import GuestMemory
internal import LinuxSystem
internal import SystemPackage

/// The buffers that a driver has given for packets to come: popped ahead, so that one call of the kernel puts a packet of any length into
/// as many of them as it takes.
struct ReceiveBuffers {
    /// What there is room for.
    enum Room {
        case anyPacket
        case shortPackets
        case nothing
    }

    private struct Buffer {
        let ticket: VirtqueueTicket
        let count: Int
    }

    private let queue: Virtqueue
    private var chain = DescriptorChain()
    private var buffers: [Buffer] = []
    /// The first buffer that is not used up.
    private var first = 0
    private var room: GuestVector
    private var wanted = 0
    private var isMergeable = false

    init(_ queue: Virtqueue, _ memory: GuestMemory) {
        self.queue = queue
        room = GuestVector(memory, capacity: 2 * GuestVector.maximumParts)
        buffers.reserveCapacity(2 * GuestVector.maximumParts)
    }

    /// - Parameters:
    ///   - wanted: bytes of the longest packet to come.
    ///   - isMergeable: a packet may take several buffers.
    mutating func configure(wanted: Int, isMergeable: Bool) {
        self.wanted = wanted
        self.isMergeable = isMergeable
    }

    /// Pops until there is room for any packet. Where that cannot be had, the driver rings for the next buffer. nil: one has no room.
    mutating func fill() -> Room? {
        while isMergeable ? room.count < wanted && room.partCount < GuestVector.maximumParts : count == 0 {
            if queue.pop(into: &chain) {
                if chain.writableBytes == 0 {
                    queue.push(chain.ticket, written: 0)
                    return nil
                }
                for segment in chain.writable { try? room.append(segment.address, segment.count) }  // RAM, as the queue has found
                buffers.append(Buffer(ticket: chain.ticket, count: chain.writableBytes))
            } else if !queue.enableNotifications() {
                // A driver whose whole ring is here has no more to give.
                return count == 0 ? .nothing : count < Int(queue.size) ? .shortPackets : .anyPacket
            }
        }
        return .anyPacket
    }

    /// Reads a packet into the first buffers and returns those to the driver, without showing them yet.
    ///
    /// A packet longer than the buffers arrives cut, and the guest's IP drops it.
    mutating func receive(from tap: borrowing OwnedDescriptor) throws(Errno) {
        var left = try room.receive(from: tap)
        if left == 0 { throw Errno.brokenPipe }
        var end = first
        var held = 0
        while held < left {
            held += buffers[end].count
            end += 1
        }
        room.store(integer: UInt16(end - first), at: NetworkLimits.bufferCountOffset)
        for buffer in buffers[first..<end] {
            let part = min(left, buffer.count)
            queue.push(buffer.ticket, written: part)
            left -= part
        }
        room.removeFirst(held)
        first = end
        if first >= GuestVector.maximumParts || first == buffers.count {
            buffers.removeSubrange(..<first)
            first = 0
        }
    }

    /// Gives every buffer back to the queue.
    mutating func giveBack() {
        if let next = buffers[first...].first { queue.rewind(count, of: next.ticket) }
        buffers.removeAll(keepingCapacity: true)
        first = 0
        room.removeAll()
    }

    private var count: Int { buffers.count - first }
}
