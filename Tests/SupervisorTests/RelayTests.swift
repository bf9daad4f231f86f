import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing

/// The streams between guests and clients, with the guest's end in the test's hands.
@Suite struct RelayTests {
    private let path = "/tmp/baton-relay-\(FileSystem.randomBytes(6).map { String($0, radix: 16) }.joined())"

    private struct Guest {
        let stream: SharedDescriptor
        let own: SharedDescriptor
    }

    private func guest() throws -> Guest {
        let pair = try UnixSocket.streamPair(buffer: 1 << 20)
        let far = pair.far
        try far.descriptor.setNonBlocking(true)
        return Guest(stream: far, own: SharedDescriptor(pair.takeNear().takeDescriptor()))
    }

    private func port() throws -> (relay: PortRelay, guest: Guest) {
        let relay = try PortRelay()
        try relay.start()
        let guest = try guest()
        let listener = try SocketListener(path: path, key: "k")
        try relay.add(
            machine: "web1", [DeviceResources.Port(device: 0, port: 0, ofWorker: guest.stream, own: guest.own, listener: listener)])
        return (relay, guest)
    }

    private func read(_ descriptor: borrowing OwnedDescriptor, _ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count, try Poll.one(descriptor.number, timeout: .seconds(5)) {
            let part = try descriptor.read(upTo: count - bytes.count)
            if part.isEmpty { break }
            bytes += part
        }
        return bytes
    }

    /// How much of a part was taken; `nil` when there is no room.
    private func offer(_ guest: Guest, _ bytes: [UInt8], from offset: Int) -> Int? {
        let part = Array(bytes[offset..<min(offset + 65536, bytes.count)])
        return try? guest.stream.descriptor.write(part.span)
    }

    private func sendAll(_ guest: Guest, _ bytes: [UInt8]) {
        var offset = 0
        while offset < bytes.count {
            if let taken = offer(guest, bytes, from: offset) { offset += taken } else { SystemClock.sleep(.milliseconds(1)) }
        }
    }

    private func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) } }

    @Test func whatTheGuestSendsWaitsForAClient() throws {
        let (relay, guest) = try port()
        _ = try guest.stream.descriptor.write(Array("before".utf8).span)
        SystemClock.sleep(.milliseconds(50))
        let client = try UnixSocket.connect(to: path)
        #expect(try read(client.descriptor, 6) == Array("before".utf8))
        try client.descriptor.writeAll(Array("hello".utf8))
        #expect(try read(guest.stream.descriptor, 5) == Array("hello".utf8))
        relay.remove(machine: "web1")
    }

    @Test func aClientThatDoesNotReadHoldsTheGuestUpAndLosesNothing() throws {
        let (relay, guest) = try port()
        let client = try UnixSocket.connect(to: path)
        let sent = pattern(8 << 20)
        var offset = 0
        for _ in 0..<100 {
            if let taken = offer(guest, sent, from: offset) { offset += taken } else { SystemClock.sleep(.milliseconds(1)) }
        }
        #expect(offset < sent.count)  // nobody took it
        var received: [UInt8] = []
        while received.count < sent.count {
            if offset < sent.count, let taken = offer(guest, sent, from: offset) { offset += taken }
            let part = try read(client.descriptor, min(65536, sent.count - received.count))
            if part.isEmpty { break }
            received += part
        }
        #expect(received == sent)
        relay.remove(machine: "web1")
    }

    @Test func theNextClientGoesOnWhereTheLastLeft() throws {
        let (relay, guest) = try port()
        do {
            let first = try UnixSocket.connect(to: path)
            _ = try guest.stream.descriptor.write(Array("one".utf8).span)
            #expect(try read(first.descriptor, 3) == Array("one".utf8))
        }
        SystemClock.sleep(.milliseconds(50))
        _ = try guest.stream.descriptor.write(Array("two".utf8).span)
        let second = try UnixSocket.connect(to: path)
        #expect(try read(second.descriptor, 3) == Array("two".utf8))
        relay.remove(machine: "web1")
    }

    @Test func whatAClientSentBeforeItLeftReachesTheGuest() throws {
        let (relay, guest) = try port()
        let sent = pattern(3 << 20)
        let thread = try SystemThread(name: "client") { [path] in
            if let client = try? UnixSocket.connect(to: path) { try? client.descriptor.writeAll(sent) }
        }
        #expect(try read(guest.stream.descriptor, sent.count) == sent)
        thread.join()
        relay.remove(machine: "web1")
    }

    @Test func theLastBytesOfAMachineReachItsClientAndTheSocketIsGone() throws {
        let (relay, guest) = try port()
        let client = try UnixSocket.connect(to: path)
        let sent = pattern(900_000)
        sendAll(guest, sent)
        relay.remove(machine: "web1")
        #expect(!FileSystem.exists(path))
        #expect(try read(client.descriptor, sent.count + 1) == sent)
    }

    @Test func everyClientOfASerialConsoleGetsThePastAndEverythingAfterIt() throws {
        let relay = try ConsoleRelay()
        try relay.start()
        let guest = try guest()
        try relay.add(machine: "web1", stream: guest.own, logPath: path + ".log", listener: try SocketListener(path: path, key: "k"))
        let first = try UnixSocket.connect(to: path)
        _ = try guest.stream.descriptor.write(Array("boot\n".utf8).span)
        #expect(try read(first.descriptor, 5) == Array("boot\n".utf8))
        let second = try UnixSocket.connect(to: path)
        #expect(try read(second.descriptor, 5) == Array("boot\n".utf8))
        // Ten times what a socket holds, and nobody reads meanwhile for a while.
        let sent = pattern(600_000)
        sendAll(guest, sent)
        #expect(try read(first.descriptor, sent.count) == sent)
        #expect(try read(second.descriptor, sent.count) == sent)
        try second.descriptor.writeAll(Array("ls\n".utf8))
        #expect(try read(guest.stream.descriptor, 3) == Array("ls\n".utf8))
        relay.remove(machine: "web1")
        #expect(try read(first.descriptor, 1).isEmpty)
    }
}
