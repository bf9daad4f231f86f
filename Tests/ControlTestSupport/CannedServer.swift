import LinuxSystem
package import SystemPackage

/// Something on a socket that is no supervisor: it reads one message, answers every client the same, and hangs up.
package final class CannedServer {
    package let path: String
    private let stopping: SharedDescriptor
    private let thread: SystemThread

    /// `answer`: sent as it is; nothing for a server that only hangs up.
    package init(answer: String?) throws(Errno) {
        path = "/tmp/baton-test-\(UInt64.random(in: 0 ... .max)).socket"
        let listener = Holder(try UnixListener(path: path, permissions: 0o600))
        let stopping = SharedDescriptor(try EventDescriptor().descriptor.duplicate())
        self.stopping = stopping
        thread = try SystemThread(name: "canned") {
            while true {
                var poll = Poll([(listener.listener.descriptor.number, .readable), (stopping.number, .readable)])
                guard let ready = try? poll.wait(timeout: nil), ready > 0, poll.result(at: 1).isEmpty else { return }
                guard let client = try? listener.listener.accept() else { continue }
                let connection = RawClient(client)
                guard connection.receive() != nil else { continue }
                if let answer { connection.send(answer) }
            }
        }
    }

    deinit {
        let one: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
        try? stopping.descriptor.writeAll(one)
        thread.join()
        try? FileSystem.remove(path)
    }

    private final class Holder: Sendable {
        let listener: UnixListener

        init(_ listener: consuming UnixListener) { self.listener = listener }
    }
}
