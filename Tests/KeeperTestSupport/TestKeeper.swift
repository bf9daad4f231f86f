package import Keeper
import LinuxSystem
import Synchronization

/// A keeper in this process: custody as it is, served by a thread.
package final class TestKeeper: Sendable {
    package let client: CustodyClient
    private let count = Counter()

    package init() throws {
        let pair = try UnixSocket.sequencedPair()
        let far = pair.far
        client = CustodyClient(pair.takeNear())
        let thread = try SystemThread(name: "keeper") { [count] in Self.serve(far, count) }
        thread.detach()
    }

    // What is in custody has gone when nobody needs this any more, so that devices are free for the next test.
    deinit {
        for key in (try? client.list()) ?? [] { try? client.drop(key) }
    }

    /// How many requests have come.
    package var asked: Int { count.value.load(ordering: .sequentiallyConsistent) }

    private static func serve(_ end: SharedDescriptor, _ count: Counter) {
        guard let own = try? end.descriptor.duplicate() else { return }
        let socket = UnixSocket(own)
        var custody = Custody()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while let (length, descriptors) = try? socket.receive(into: &buffer), length > 0 {
            count.value.add(1, ordering: .sequentiallyConsistent)
            let (answer, lent) = custody.answer(buffer, length: length, descriptors)
            try? socket.send(answer.span, descriptors: lent)
        }
    }
}

private final class Counter: Sendable {
    let value = Atomic(0)
}
