internal import GuestMemory
internal import Synchronization

/// Messages between console and driver on the control queues (virtio 1.2 §5.3.6.2).
extension VirtioConsole {
    private enum Event {
        static let deviceReady: UInt16 = 0
        static let deviceAdd: UInt16 = 1
        static let portReady: UInt16 = 3
        static let consolePort: UInt16 = 4
        static let portOpen: UInt16 = 6
        static let portName: UInt16 = 7
    }

    private static let messageSize = 8
    private static let round = 16

    /// What the driver says. What does not make sense is passed over.
    func receiveMessages(_ queue: Virtqueue, _ connection: VirtioConnection) -> Bool {
        let isMore = queue.serve(upTo: Self.round) { chain in
            let bytes = connection.memory.gather(chain.readable, skipping: 0, upTo: Self.messageSize)
            if bytes.count == Self.messageSize { take(VirtioConsoleState.Message(bytes), connection) }
            queue.complete(chain.ticket, written: 0)
        }
        _ = sendMessages(connection.queues[2], connection)
        return isMore
    }

    private func take(_ message: VirtioConsoleState.Message, _ connection: VirtioConnection) {
        let isFull = live.withLock { live in
            guard live.isMultiport else { return false }
            let port = Int(message.port)
            switch message.event {
            case Event.deviceReady where message.value == 1:
                for number in names.indices { live.messages.append(.init(port: UInt32(number), event: Event.deviceAdd, value: 1)) }
            case Event.portReady where message.value == 1 && port < names.count:
                if port == 0 { live.messages.append(.init(port: 0, event: Event.consolePort, value: 1)) }
                live.messages.append(.init(port: message.port, event: Event.portName, value: 1))
                live.messages.append(.init(port: message.port, event: Event.portOpen, value: 1))
            case Event.portOpen where port < names.count: live.ports[port].isOpen = message.value != 0
            default: break
            }
            if live.messages.count <= Self.messageLimit { return false }
            live.messages.removeLast(live.messages.count - Self.messageLimit)
            return true
        }
        if isFull { connection.transport.fail("queue 3: more than \(Self.messageLimit) messages wait for buffers in queue 2") }
    }

    /// Gives the driver what it has buffers for.
    func sendMessages(_ queue: Virtqueue, _ connection: VirtioConnection) -> Bool {
        live.withLock { live in
            while !live.messages.isEmpty {
                guard let chain = queue.pop() else {
                    if queue.enableNotifications() { continue }
                    return false
                }
                let message = live.messages.removeFirst()
                let name = message.event == Event.portName && Int(message.port) < names.count ? Array(names[Int(message.port)].utf8) : []
                queue.complete(chain.ticket, written: connection.memory.fill(chain.writable, with: message.bytes + name))
            }
            return false
        }
    }
}

extension VirtioConsoleState.Message {
    fileprivate init(_ bytes: [UInt8]) {
        func word(_ start: Int) -> UInt16 { UInt16(bytes[start]) | UInt16(bytes[start + 1]) << 8 }
        self.init(port: UInt32(word(0)) | UInt32(word(2)) << 16, event: word(4), value: word(6))
    }

    fileprivate var bytes: [UInt8] { littleEndian(port) + littleEndian(event) + littleEndian(value) }
}
