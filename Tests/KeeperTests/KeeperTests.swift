import LinuxSystem
import Synchronization
import SystemPackage
import Testing
import Wire

@testable import Keeper

@Suite struct CustodyTests {
    private func memory() throws -> SharedDescriptor {
        SharedDescriptor(try MemoryDescriptor(name: "test", size: 4096).takeDescriptor())
    }

    @Test func whatIsPutCanBeHadAgainAndAgain() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        let memory = try memory()
        try custody.put(key, memory)
        for _ in 0..<2 { #expect(try custody.get(key) === memory) }
        #expect(custody.count == 1)
    }

    @Test func aKeyIsHeldOnce() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        try custody.put(key, try memory())
        #expect(throws: KeeperRefusal.occupied) { try custody.put(key, try memory()) }
        try custody.put(CustodyKey(machine: "web1", name: "ram", generation: 1), try memory())
    }

    @Test func whatIsDroppedIsGone() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        try custody.put(key, try memory())
        try custody.drop(key)
        #expect(throws: KeeperRefusal.absent) { try custody.get(key) }
        #expect(throws: KeeperRefusal.absent) { try custody.drop(key) }
        #expect(custody.entry(from: 0) == nil)
    }

    @Test func everyEntryIsListedOnce() throws {
        var custody = Custody()
        let memory = try memory()
        let keys = (0..<40).map { CustodyKey(machine: "m\($0 % 3)", name: "r\($0)", generation: UInt32($0)) }
        for key in keys { try custody.put(key, memory) }
        try custody.drop(keys[7])
        var listed: [CustodyKey] = []
        var slot = 0
        while let entry = custody.entry(from: slot) {
            listed.append(entry.key)
            slot = entry.slot + 1
        }
        #expect(Set(listed) == Set(keys).subtracting([keys[7]]))
        #expect(listed.count == 39)
    }

    @Test func aPlaceThatBecameFreeIsTakenAgain() throws {
        var custody = Custody()
        let memory = try memory()
        for index in 0..<10 { try custody.put(CustodyKey(machine: "m\(index % 2)", name: "\(index)"), memory) }
        for index in 3..<7 { try custody.drop(CustodyKey(machine: "m\(index % 2)", name: "\(index)")) }
        for index in 3..<7 { try custody.put(CustodyKey(machine: "m2", name: "\(index)"), memory) }
        #expect(custody.count == 10)
        #expect(custody.entry(from: 10) == nil)
        for index in 0..<10 { _ = try custody.get(CustodyKey(machine: (3..<7).contains(index) ? "m2" : "m\(index % 2)", name: "\(index)")) }
    }

    @Test func aFullTableRefusesAndStaysWhole() throws {
        var custody = Custody()
        let memory = try memory()
        for index in 0..<Custody.capacity { try custody.put(CustodyKey(machine: "m\(index / 16)", name: "\(index % 16)"), memory) }
        #expect(throws: KeeperRefusal.full) { try custody.put(CustodyKey(machine: "", name: "one more"), memory) }
        #expect(custody.count == Custody.capacity)
    }
}

@Suite struct CustodyClientTests {
    /// A keeper's side of a session; what it was asked, in order.
    private static func keeper(_ end: SharedDescriptor) throws -> (SystemThread, Asked) {
        let asked = Asked()
        let socket = UnixSocket(try end.descriptor.duplicate())
        let kept = SocketBox(socket)
        let thread = try SystemThread(name: "keeper") {
            var custody = Custody()
            var buffer = [UInt8](repeating: 0, count: KeeperRequest.maximumLength)
            while let (length, descriptors) = try? kept.socket.receive(into: &buffer), length > 0 {
                var reply = KeeperReply.done
                do {
                    var reader = WireReader(buffer, range: 0..<length)
                    let request = try KeeperRequest(from: &reader)
                    asked.add(request)
                    switch request {
                    case .put(let key): try custody.put(key, descriptors[0])
                    case .get(let key): _ = try custody.get(key)
                    case .drop(let key): try custody.drop(key)
                    case .list(let after): reply = custody.entry(from: Int(after)).map { .entry($0.key, slot: UInt32($0.slot)) } ?? .end
                    }
                } catch {
                    reply = .refused(error as? KeeperRefusal ?? .malformed)
                }
                var writer = WireWriter(capacity: KeeperRequest.maximumLength)
                reply.encode(to: &writer)
                try? kept.socket.send(writer.bytes.span)
            }
        }
        return (thread, asked)
    }

    @Test func theKeysOfAMachineAreKnownWithoutAskingAgain() throws {
        let pair = try UnixSocket.sequencedPair()
        let (thread, asked) = try Self.keeper(pair.far)
        thread.detach()
        let client = CustodyClient(pair.takeNear())
        let memory = SharedDescriptor(try MemoryDescriptor(name: "test", size: 4096).takeDescriptor())
        let keys = ["a", "b", "c"].map { CustodyKey(machine: "m1", name: $0) }
        try client.put(keys[0], memory)
        #expect(try client.keys(of: "m1") == [keys[0]])
        let before = asked.count
        #expect(try client.keys(of: "m1") == [keys[0]])
        #expect(try client.keys(of: "m2").isEmpty)
        try client.drop(keys[1])
        #expect(throws: CustodyError.self) { try client.put(keys[0], memory) }
        #expect(asked.count == before, "it is known what is there and what is not")
        try client.put(keys[1], memory)
        try client.put(keys[2], memory)
        try client.drop(keys[0])
        #expect(asked.count == before + 3)
        #expect(try Set(client.keys(of: "m1")) == Set(keys[1...]))
        #expect(try Set(client.list()) == Set(keys[1...]))
    }
}

private final class Asked: Sendable {
    private let requests = Mutex<[KeeperRequest]>([])
    func add(_ request: KeeperRequest) { requests.withLock { $0.append(request) } }
    var count: Int { requests.withLock { $0.count } }
}

private final class SocketBox: Sendable {
    let socket: UnixSocket
    init(_ socket: consuming UnixSocket) { self.socket = socket }
}
