import LinuxSystem
import SystemPackage
import Wire

@testable import Keeper

/// A keeper in this process: custody as it is, and the four requests served by a thread.
final class TestKeeper: Sendable {
    let client: CustodyClient

    init() throws {
        let pair = try UnixSocket.sequencedPair()
        let far = pair.far
        client = CustodyClient(pair.takeNear())
        let thread = try SystemThread(name: "keeper") { Self.serve(far) }
        thread.detach()
    }

    // What is in custody has gone when nobody needs this any more, so that devices are free for the next test.
    deinit {
        for key in (try? client.list()) ?? [] { try? client.drop(key) }
    }

    private static func serve(_ end: SharedDescriptor) {
        guard let own = try? end.descriptor.duplicate() else { return }
        let socket = UnixSocket(own)
        var custody = Custody()
        var buffer = [UInt8](repeating: 0, count: KeeperRequest.maximumLength)
        while let (length, descriptors) = try? socket.receive(into: &buffer), length > 0 {
            var (lent, reply) = ([CInt](), KeeperReply.done)
            do {
                var reader = WireReader(buffer, range: 0..<length)
                switch try KeeperRequest(from: &reader) {
                case .put(let key): try custody.put(key, descriptors[0])
                case .get(let key): lent = [try custody.get(key).number]
                case .drop(let key): try custody.drop(key)
                case .list(let after): reply = custody.entry(from: Int(after)).map { .entry($0.key, slot: UInt32($0.slot)) } ?? .end
                }
            } catch {
                reply = .refused(error as? KeeperRefusal ?? .malformed)
            }
            var writer = WireWriter(capacity: KeeperRequest.maximumLength)
            reply.encode(to: &writer)
            let bytes = writer.bytes
            try? socket.send(bytes.span, descriptors: lent)
        }
    }
}
