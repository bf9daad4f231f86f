internal import Control
package import LinuxSystem
internal import Synchronization
package import SystemPackage

/// The control socket: accepts clients and gives each a thread, as long as there are not too many.
///
/// Threads, not tasks: a process that changes credentials per thread must know its threads. Without clients there is one, blocked in
/// poll(2). No client can hold anything: reads and writes have deadlines, and commands run on where their client leaves.
package final class VarlinkServer: Sendable {
    /// Who may use the socket, beyond what its file mode says.
    package enum Access: Sendable, Equatable {
        /// The supervisor's own user, and root.
        case owners
        /// Whoever the mode of the socket's file let in.
        case socketMode
    }

    package struct Configuration: Sendable {
        package var access: Access = .owners
        package var limits = ConnectionLimits()
        /// Connections at one time.
        package var maximumConnections = 64
        /// One line about a client that was turned away.
        package var log: @Sendable (String) -> Void = { _ in }

        package init() {}
    }

    private let listener: UnixListener
    private let service: any SupervisorService
    private let configuration: Configuration
    private let stopping: EventDescriptor
    private let connections = Mutex(0)
    private let acceptor = Mutex<SystemThread?>(nil)

    /// Serves `service` on `listener` once ``start()`` is called.
    package init(
        listener: consuming UnixListener, service: any SupervisorService, configuration: Configuration = Configuration()
    ) throws(Errno) {
        self.listener = listener
        self.service = service
        self.configuration = configuration
        stopping = try EventDescriptor()
    }

    /// Begins to accept.
    package func start() throws(Errno) {
        let thread = try SystemThread(name: "control") { [self] in acceptUntilStopped() }
        acceptor.withLock { $0 = thread }
    }

    /// Accepts no more, and asks every connection to end; commands under way go on. Returns when nothing is accepted any more.
    package func stop() {
        stopping.signal()
        let thread = acceptor.withLock { thread in
            defer { thread = nil }
            return thread
        }
        thread?.join()
    }

    /// Connections being served now.
    package var connectionCount: Int { connections.withLock { $0 } }

    private func acceptUntilStopped() {
        while true {
            var poll = Poll([(listener.descriptor.number, .readable), (stopping.descriptor.number, .readable)])
            do {
                try poll.wait(timeout: nil)
                if !poll.result(at: 1).isEmpty { return }
                if !poll.result(at: 0).isEmpty { admit(ConnectionSocket(try listener.accept())) }
            } catch .wouldBlock {
                continue
            } catch {
                // Out of descriptors or memory: the client waits in the queue, and we do not spin over it.
                configuration.log("control socket: \(error)")
                SystemClock.sleep(.milliseconds(100))
            }
        }
    }

    private func admit(_ client: ConnectionSocket) {
        guard isAllowed(client) else { return turnAway(client, .notPermitted) }
        let admitted = connections.withLock { count in
            if count >= configuration.maximumConnections { return false }
            count += 1
            return true
        }
        guard admitted else {
            return turnAway(
                client,
                .unavailable(feature: "connection", reason: "\(configuration.maximumConnections) clients are connected already"))
        }
        do {
            try SystemThread(name: "control-client") { [self] in
                serve(client)
                connections.withLock { $0 -= 1 }
            }.detach()
        } catch {
            connections.withLock { $0 -= 1 }
            turnAway(client, .unavailable(feature: "connection", reason: "no thread could be started (\(error))"))
        }
    }

    private func serve(_ client: ConnectionSocket) {
        SystemThread.setUrgent(true)  // mostly it waits, and what it tells an operator of is over
        var connection = Connection(client, stopping: stopping.descriptor.number, limits: configuration.limits)
        CallHandler(service: service).serve(&connection)
    }

    private func isAllowed(_ client: ConnectionSocket) -> Bool {
        switch configuration.access {
        case .socketMode: return true
        case .owners:
            guard let peer = try? client.socket.peer() else { return false }
            return peer.uid == 0 || peer.uid == CurrentProcess.effectiveUser
        }
    }

    private func turnAway(_ client: ConnectionSocket, _ error: ControlError) {
        configuration.log("control socket: a client was turned away: \(error.shortName)")
        // A few bytes into an empty socket buffer: they fit, or the client is gone.
        _ = try? client.socket.sendSome(Reply.frame(error: error)[...])
    }
}
