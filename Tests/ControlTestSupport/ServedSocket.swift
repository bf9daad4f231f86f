import Control
package import LinuxSystem
package import Supervisor
package import SystemPackage

/// A control server on a socket of its own, with the stub behind it. Goes away with the value.
package final class ServedSocket {
    package let path: String
    package let service: StubService
    package let server: VarlinkServer

    package init(_ service: StubService = StubService(), configure: (inout VarlinkServer.Configuration) -> Void = { _ in }) throws(Errno) {
        self.service = service
        path = "/tmp/baton-test-\(UInt64.random(in: 0 ... .max)).socket"
        var configuration = VarlinkServer.Configuration()
        configure(&configuration)
        server = try VarlinkServer(
            listener: UnixListener(path: path, permissions: 0o600), service: service, configuration: configuration)
        try server.start()
    }

    deinit {
        server.stop()
        try? FileSystem.remove(path)
    }

    /// A client that speaks bytes.
    package func connect() throws(Errno) -> RawClient { RawClient(try UnixSocket.connect(to: path)) }

    /// Waits until nobody is connected any more; whether that came in time.
    package func becomesIdle(within timeout: Duration = .seconds(5)) -> Bool {
        let end = SystemClock.monotonic() + timeout.nanoseconds
        while server.connectionCount > 0 {
            if SystemClock.monotonic() > end { return false }
            SystemClock.sleep(.milliseconds(5))
        }
        return true
    }
}

/// One end of a connection, for sending what no decent client sends.
package final class RawClient {
    package let socket: UnixSocket
    private var decoder = FrameDecoder(limit: 64 << 20)

    package init(_ socket: consuming UnixSocket) { self.socket = socket }

    /// Sends bytes as they are, as far as somebody takes them.
    package func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            do {
                rest = rest.dropFirst(try socket.sendSome(rest))
            } catch .wouldBlock {
                guard let ready = try? Poll.one(socket.descriptor.number, .writable, timeout: .seconds(5)), ready else { return }
            } catch {
                return
            }
        }
    }

    /// Sends text and the NUL that ends a message.
    package func send(_ text: String) { send(Array(text.utf8) + [0]) }

    /// The next reply as text; `nil` when the server has closed, or says nothing for `timeout`.
    package func receive(timeout: Duration = .seconds(5)) -> String? {
        while true {
            if let frame = try? decoder.next() { return String(decoding: frame, as: UTF8.self) }
            guard let ready = try? Poll.one(socket.descriptor.number, timeout: timeout), ready,
                let bytes = try? socket.descriptor.read(upTo: 65536), !bytes.isEmpty
            else { return nil }
            decoder.append(bytes)
        }
    }

    /// Bytes beyond the last reply.
    package func takeRest() -> [UInt8] { decoder.takeRest() }

    /// Whether the server closes within the time limit. What it still says is dropped.
    package func isClosed(within timeout: Duration = .seconds(5)) -> Bool {
        while let ready = try? Poll.one(socket.descriptor.number, timeout: timeout), ready {
            guard let bytes = try? socket.descriptor.read(upTo: 65536), !bytes.isEmpty else { return true }
        }
        return false
    }
}
