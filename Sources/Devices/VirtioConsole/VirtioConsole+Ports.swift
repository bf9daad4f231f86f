internal import GuestMemory
internal import LinuxSystem
internal import Synchronization

/// The bytes of a port.
extension VirtioConsole {
    /// Bytes moved at a time.
    private static let piece = 4096
    /// Pieces moved before other work of the thread is looked at.
    private static let round = 16

    /// Whether input of a port may be taken from its stream: the guest has opened it and has room.
    func wantsInput(_ port: Int, _ queue: Virtqueue) -> Bool {
        guard streams[port].takesInput, live.withLock({ $0.ports[port].isOpen }) else { return false }
        return !queue.isEmpty || queue.enableNotifications()
    }

    func isBlocked(_ port: Int) -> Bool { live.withLock { $0.isBlocked[port] } }

    /// From the stream to the guest, as far as the guest has room.
    func receive(_ port: Int, _ queue: Virtqueue, _ memory: GuestMemory) {
        for _ in 0..<Self.round {
            guard let chain = queue.pop() else { return }
            let room = min(chain.writableBytes, Self.piece)
            let bytes = room > 0 ? streams[port].read(upTo: room) : []
            if bytes.isEmpty, room > 0 { return queue.rewind(1, of: chain.ticket) }
            queue.complete(chain.ticket, written: memory.fill(chain.writable, with: bytes))
        }
    }

    /// From the guest to the stream, as far as it takes it. `true`: there is more, and it may.
    func transmit(_ port: Int, _ queue: Virtqueue, _ memory: GuestMemory) -> Bool {
        live.withLock { live in
            flush(port, &live)
            queue.disableNotifications()
            for _ in 0..<Self.round {
                if live.isBlocked[port], port != 0 { return false }
                guard let chain = queue.pop() else {
                    if queue.enableNotifications() { continue }
                    return false
                }
                move(port, chain, queue, memory, &live)
            }
            return true
        }
    }

    /// A piece of a chain. The rest of the chain stays in the queue, with what was written of it remembered.
    private func move(_ port: Int, _ chain: DescriptorChain, _ queue: Virtqueue, _ memory: GuestMemory, _ live: inout Live) {
        let offset = Int(live.ports[port].offset)
        let bytes = memory.gather(chain.readable, skipping: offset, upTo: Self.piece)
        let taken = write(bytes[...], to: port, &live)
        let end = offset + taken
        if bytes.isEmpty || end >= chain.readableBytes {
            live.ports[port].offset = 0
            queue.complete(chain.ticket, written: 0)
        } else {
            live.ports[port].offset = UInt64(end)
            queue.rewind(1, of: chain.ticket)
        }
    }

    /// Bytes that need not be given again: written, kept or dropped.
    private func write(_ bytes: ArraySlice<UInt8>, to port: Int, _ live: inout Live) -> Int {
        let taken = live.ports[port].unsent.isEmpty ? send(bytes, to: port, &live) : 0
        guard taken < bytes.count else { return taken }
        live.isBlocked[port] = true
        guard port == 0 else { return taken }
        let rest = bytes.dropFirst(taken)
        let kept = rest.prefix(Self.outputLimit - live.ports[port].unsent.count)
        live.ports[port].unsent += kept
        live.ports[port].dropped += UInt64(rest.count - kept.count)
        return bytes.count
    }

    /// Bytes that the stream took; those for a broken one are dropped.
    private func send(_ bytes: ArraySlice<UInt8>, to port: Int, _ live: inout Live) -> Int {
        if bytes.isEmpty { return 0 }
        if let taken = streams[port].write(Array(bytes).span) { return taken }
        live.ports[port].dropped += UInt64(bytes.count)
        return bytes.count
    }

    /// Writes what was kept for the stream.
    private func flush(_ port: Int, _ live: inout Live) {
        let unsent = live.ports[port].unsent
        let taken = send(unsent[...], to: port, &live)
        live.ports[port].unsent.removeFirst(taken)
        live.isBlocked[port] = taken < unsent.count
    }
}

/// Waits for a port's stream.
final class PortPump: EventSource {
    private weak let console: VirtioConsole?
    private let port: Int
    private let receive: Virtqueue
    private let transmit: QueueSource
    private let memory: GuestMemory
    private let number: CInt

    init(_ console: VirtioConsole, _ port: Int, receive: Virtqueue, transmit: QueueSource, _ memory: GuestMemory) {
        self.console = console
        self.port = port
        self.receive = receive
        self.transmit = transmit
        self.memory = memory
        number = console.streams[port].number
    }

    func interest() -> (number: CInt, readiness: Readiness)? {
        guard let console else { return nil }
        var readiness: Readiness = []
        if console.wantsInput(port, receive) { readiness.insert(.readable) }
        if console.isBlocked(port) { readiness.insert(.writable) }
        return readiness.isEmpty ? nil : (number, readiness)
    }

    func handle(_ readiness: Readiness) {
        guard let console else { return }
        if !readiness.isDisjoint(with: [.writable, .failed, .hungUp]), console.isBlocked(port) { transmit.handle([]) }
        if !readiness.isDisjoint(with: [.readable, .failed, .hungUp]), console.wantsInput(port, receive) {
            console.receive(port, receive, memory)
        }
    }
}
