internal import GuestMemory
package import LinuxSystem
internal import Synchronization
package import SystemPackage

/// A console with several ports (virtio 1.2 §5.3), each a byte stream that outlives the worker. Port 0 is a terminal (`hvc0`), the others have
/// names only.
///
/// No byte is lost or doubled by a handover. Input stays in its stream until the guest has a buffer for it. Output stays in the guest's
/// buffer until its stream takes it, however far it has got; the guest's writer waits meanwhile. Port 0's does not, because a guest may
/// spin there: what its stream does not take is kept up to ``outputLimit``, and beyond that dropped and counted.
package final class VirtioConsole: VirtioDevice {
    /// Bytes kept for a terminal whose stream is full.
    package static let outputLimit = 16 << 10
    package static let maximumPorts = 32
    /// Messages that may wait for a buffer of the driver's.
    package static let messageLimit = 256

    struct Live {
        var ports: [VirtioConsoleState.Port]
        var messages: [VirtioConsoleState.Message] = []
        var isMultiport = false
        /// Ports whose stream was full when last written to.
        var isBlocked: [Bool]
    }

    private struct Running {
        let thread: DeviceThread
        let sources: [QueueSource]
    }

    package let kind = VirtioKind.console
    package let features = VirtioFeatures(rawValue: 1 << 1)  // VIRTIO_CONSOLE_F_MULTIPORT
    package let queueSizes: [UInt16]
    let names: [String]
    let streams: [Console]
    let live: Mutex<Live>
    private let running = Mutex<Running?>(nil)

    /// - Parameters:
    ///   - ports: at least one; their names, and sockets, pipes or terminals that are made non-blocking, for everyone who has them.
    package init(_ ports: [(name: String, stream: SharedDescriptor)]) throws(Errno) {
        precondition((1...Self.maximumPorts).contains(ports.count), "a console has 1 to 32 ports")
        names = ports.map(\.name)
        var streams: [Console] = []
        for port in ports { streams.append(try Console(port.stream)) }
        self.streams = streams
        queueSizes = [UInt16](repeating: 64, count: 2 * ports.count + 2)
        live = Mutex(
            Live(
                ports: [VirtioConsoleState.Port](repeating: VirtioConsoleState.Port(), count: ports.count),
                isBlocked: [Bool](repeating: false, count: ports.count)))
    }

    /// §5.3.4: size in characters (not offered), number of ports, emergency write (not offered).
    package func configuration() -> [UInt8] { [0, 0, 0, 0] + littleEndian(UInt32(names.count)) + [0, 0, 0, 0] }

    /// §5.3.2: receive and transmit queue of port 0, then the control queues, then those of the other ports.
    static func receiveQueue(of port: Int) -> Int { port == 0 ? 0 : 2 + 2 * port }

    package func start(_ connection: VirtioConnection) throws(Errno) {
        let queues = connection.queues
        var sources = [
            QueueSource(queues[2]) { [weak self] in self?.sendMessages($0, connection) ?? false },
            QueueSource(queues[3]) { [weak self] in self?.receiveMessages($0, connection) ?? false },
        ]
        var pumps: [PortPump] = []
        for port in names.indices {
            let receive = queues[Self.receiveQueue(of: port)]
            let transmit = QueueSource(queues[Self.receiveQueue(of: port) + 1]) { [weak self] in
                self?.transmit(port, $0, connection.memory) ?? false
            }
            pumps.append(PortPump(self, port, receive: receive, transmit: transmit, connection.memory))
            sources.append(transmit)
            // A buffer to receive into has come: whether to read the stream is asked anew by itself.
            sources.append(QueueSource(receive) { _ in false })
        }
        let thread = try DeviceThread(name: connection.name + "/con", sources: sources + pumps)
        try thread.start()
        running.withLock { [sources] in $0 = Running(thread: thread, sources: sources) }
    }

    package func activate(_ features: VirtioFeatures) {
        live.withLock { live in
            live.isMultiport = features.contains(self.features)
            if !live.isMultiport { live.ports[0].isOpen = true }
        }
    }

    package func reset() {
        live.withLock { live in
            live.isMultiport = false
            live.messages = []
            for port in live.ports.indices {
                live.ports[port].isOpen = false
                live.ports[port].offset = 0
            }
        }
    }

    package func hold() { _ = running.withLock { $0?.thread }?.park(timeout: .zero) }

    package func drain(until deadline: Int64) -> Bool {
        guard let thread = running.withLock({ $0?.thread }) else { return true }
        return thread.park(timeout: .nanoseconds(max(0, deadline - SystemClock.monotonic())))
    }

    package func resume() {
        guard let running = running.withLock({ $0 }) else { return }
        for source in running.sources { source.look() }
        running.thread.run()
    }

    package func finish() { running.withLock { $0?.thread }?.finish() }

    package func state() -> VirtioConsoleState {
        live.withLock { live in
            var state = VirtioConsoleState(ports: live.ports)
            state.messages = live.messages
            return state
        }
    }

    package func restore(_ state: VirtioConsoleState) {
        live.withLock { live in
            if state.ports.count == live.ports.count { live.ports = state.ports }
            live.messages = state.messages
        }
    }
}
