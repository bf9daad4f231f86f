import GuestMemory
import LinuxSystem
import Testing

@testable import Devices

@Suite struct `A virtio console` {
    private let bench: VirtioBench<VirtioConsole>
    private let near: [SharedDescriptor]
    private let far: [SharedDescriptor]
    private static let names = ["terminal", "agent"]

    init() throws {
        var near: [SharedDescriptor] = []
        var far: [SharedDescriptor] = []
        for _ in Self.names {
            let pair = try UnixSocket.streamPair()
            far.append(pair.far)
            near.append(SharedDescriptor(pair.takeNear().takeDescriptor()))
            try far[far.count - 1].descriptor.setNonBlocking(true)
        }
        self.near = near
        self.far = far
        bench = try VirtioBench(VirtioConsole(zip(Self.names, near).map { ($0, $1) }))
        bench.device.resume()
    }

    private static let ready: [UInt8] = [0, 0, 0, 0, 0, 0, 1, 0]
    private func portReady(_ port: UInt8) -> [UInt8] { [port, 0, 0, 0, 3, 0, 1, 0] }
    private func portOpen(_ port: UInt8, _ on: Bool = true) -> [UInt8] { [port, 0, 0, 0, 6, 0, on ? 1 : 0, 0] }

    private func tell(_ messages: [UInt8]...) throws {
        for message in messages { try bench.drivers[3].add(sending: [message]) }
        bench.drivers[3].kick()
        #expect(try bench.used(messages.count, of: 3).count == messages.count)
    }

    /// Buffers of the driver's for messages, and what came into them.
    private func hear(_ count: Int) throws -> [[UInt8]] {
        let rooms = try (0..<count).map { _ in try bench.drivers[2].add(sending: [], receiving: [32]).rooms[0] }
        bench.drivers[2].kick()
        return try zip(bench.used(count, of: 2), rooms).map { try bench.memory.read(at: $1, count: $0.written) }
    }

    private func open() throws {
        try tell(Self.ready, portReady(0), portReady(1), portOpen(0), portOpen(1))
        _ = try hear(7)
    }

    private func send(_ text: String, port: Int) throws {
        let queue = port == 0 ? 1 : 5
        try bench.drivers[queue].add(sending: [Array(text.utf8)])
        bench.drivers[queue].kick()
    }

    private func received(_ count: Int, port: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        _ = bench.wait {
            bytes += (try? far[port].descriptor.read(upTo: 1 << 16)) ?? []
            return bytes.count >= count
        }
        return bytes
    }

    @Test func `introduces its ports when the driver has room for that`() throws {
        #expect(bench.device.configuration() == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
        try tell(Self.ready)
        #expect(try hear(2) == [[0, 0, 0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0, 1, 0]])
        try tell(portReady(1), portReady(0))
        let said = try hear(5)
        #expect(said[0] == [1, 0, 0, 0, 7, 0, 1, 0] + Array("agent".utf8))
        #expect(said[1] == portOpen(1))
        #expect(said[2] == [0, 0, 0, 0, 4, 0, 1, 0], "port 0 is a terminal")
        #expect(said[3] == [0, 0, 0, 0, 7, 0, 1, 0] + Array("terminal".utf8))
        #expect(said[4] == portOpen(0))
    }

    @Test func `passes over messages that make no sense, and fails over too many`() throws {
        try tell([1, 2, 3], [9, 0, 0, 0, 3, 0, 1, 0], [9, 0, 0, 0, 6, 0, 1, 0], [0, 0, 0, 0, 99, 0, 1, 0], [255, 255, 255, 255, 6, 0, 1, 0])
        #expect(bench.device.state().messages.isEmpty && !bench.transport.hasFailed)
        for _ in 0..<10 where !bench.transport.hasFailed {
            for _ in 0..<16 { try bench.drivers[3].add(sending: [Self.ready]) }
            bench.drivers[3].kick()
            _ = try bench.used(16, of: 3)
        }
        #expect(bench.transport.fault == "queue 3: more than 256 messages wait for buffers in queue 2")
    }

    @Test(arguments: [0, 1]) func `carries bytes both ways`(_ port: Int) throws {
        try open()
        try send("hello, ", port: port)
        try send("world\n", port: port)
        #expect(received(13, port: port) == Array("hello, world\n".utf8))
        try far[port].descriptor.writeAll(Array("answer".utf8))
        let queue = port == 0 ? 0 : 4
        let rooms = try (0..<2).map { _ in try bench.drivers[queue].add(sending: [], receiving: [4]).rooms[0] }
        bench.drivers[queue].kick()
        let used = try bench.used(2, of: queue)
        #expect(used.map(\.written) == [4, 2])
        #expect(try bench.memory.read(at: rooms[0], count: 4) + bench.memory.read(at: rooms[1], count: 2) == Array("answer".utf8))
    }

    @Test func `leaves input where it is until the guest has opened the port and has room`() throws {
        try far[1].descriptor.writeAll(Array("early".utf8))
        let room = try bench.drivers[4].add(sending: [], receiving: [16]).rooms[0]
        bench.drivers[4].kick()
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[4].takeUsed().isEmpty && bench.queues[4].inFlight == 0)
        try open()
        #expect(try bench.used(1, of: 4).map(\.written) == [5])
        #expect(try bench.memory.read(at: room, count: 5) == Array("early".utf8))
    }

    @Test func `makes the writer of a port wait whose stream is full, and loses no byte`() throws {
        try open()
        let piece = [UInt8](repeating: 0x61, count: 4096)
        var sent = 0
        var used = 0
        while !bench.device.isBlocked(1), sent < 1 << 24 {
            for _ in 0..<4 { try bench.drivers[5].add(sending: [piece]) }
            bench.drivers[5].kick()
            sent += 4 * piece.count
            _ = try bench.wait {
                used += try bench.drivers[5].takeUsed().count
                return used * piece.count == sent || bench.device.isBlocked(1)
            }
        }
        #expect(bench.device.isBlocked(1))
        bench.device.hold()
        #expect(bench.device.drain(until: .max))
        let state = bench.device.state()
        #expect(state.ports[1].unsent.isEmpty && state.ports[1].dropped == 0 && bench.queues[5].inFlight == 0)
        bench.device.resume()
        #expect(received(sent, port: 1).count == sent)
    }

    @Test func `does not make a terminal's writer wait`() throws {
        try open()
        var number = 0
        while bench.device.state().ports[0].dropped == 0, number < 4000 {
            try send(String(repeating: "x", count: 4096), port: 0)
            #expect(try bench.used(1, of: 1).count == 1)
            number += 1
        }
        let state = bench.device.state().ports[0]
        #expect(state.unsent.count == VirtioConsole.outputLimit && state.dropped > 0)
        let there = number * 4096 - Int(state.dropped)
        #expect(received(there, port: 0).count == there)
    }

    @Test func `goes on in the next worker with the byte after the last`() throws {
        try open()
        let text = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 * 7 % 251) }
        var handedOver = bench
        var benches: [VirtioBench<VirtioConsole>] = []
        var sent = 0
        var received: [UInt8] = []
        while sent < text.count {
            for _ in 0..<8 where sent < text.count {
                let end = min(sent + 3999, text.count)
                try handedOver.drivers[5].add(sending: [Array(text[sent..<end])])
                sent = end
            }
            handedOver.drivers[5].kick()
            if benches.count % 2 == 0 { SystemClock.sleep(.microseconds(300)) }
            handedOver.device.hold()
            #expect(handedOver.device.drain(until: .max))
            let next = try VirtioBench(VirtioConsole(zip(Self.names, near).map { ($0, $1) }), following: handedOver)
            next.device.restore(handedOver.device.state())
            benches.append(handedOver)
            handedOver = next
            handedOver.device.resume()
            // Slowly enough that the stream is full now and then.
            if sent > 150_000 || benches.count % 3 == 0 {
                while let bytes = try? far[1].descriptor.read(upTo: 1 << 16), !bytes.isEmpty { received += bytes }
            }
            _ = handedOver.wait { (try? handedOver.drivers[5].takeUsed()) != nil && handedOver.queues[5].isEmpty || handedOver.device.isBlocked(1) }
            while handedOver.device.isBlocked(1), let bytes = try? far[1].descriptor.read(upTo: 1 << 16), !bytes.isEmpty { received += bytes }
            _ = handedOver.wait { handedOver.queues[5].isEmpty }
        }
        _ = handedOver.wait {
            received += (try? far[1].descriptor.read(upTo: 1 << 16)) ?? []
            return received.count >= text.count
        }
        #expect(received == text)
    }

    @Test func `is at its beginning after a reset`() throws {
        try open()
        bench.reset()
        #expect(bench.device.state().ports.allSatisfy { !$0.isOpen && $0.offset == 0 })
    }
}

@Suite struct `A virtio source of randomness` {
    @Test func `fills what it is given, and not twice the same`() throws {
        let bench = try VirtioBench(VirtioEntropy())
        bench.device.resume()
        let first = try bench.drivers[0].add(sending: [], receiving: [40, 24]).rooms
        let second = try bench.drivers[0].add(sending: [[1, 2, 3]], receiving: [64]).rooms
        try bench.drivers[0].add(sending: [[1, 2, 3]])
        bench.drivers[0].kick()
        #expect(try bench.used(3).map(\.written) == [64, 64, 0])
        let bytes = try bench.memory.read(at: first[0], count: 40) + bench.memory.read(at: first[1], count: 24)
        let others = try bench.memory.read(at: second[0], count: 64)
        #expect(Set(bytes).count > 16 && bytes != others)
        #expect(bench.device.state().delivered == 128)
    }

    @Test func `rests while it is held, and looks at its queue afterwards`() throws {
        let bench = try VirtioBench(VirtioEntropy())
        try bench.drivers[0].add(sending: [], receiving: [8])
        bench.drivers[0].kick()
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[0].takeUsed().isEmpty)
        bench.queues[0].doorbell.take()
        bench.device.resume()
        #expect(try bench.used(1).count == 1)
        bench.device.hold()
        #expect(bench.device.drain(until: .max))
        try bench.drivers[0].add(sending: [], receiving: [8])
        bench.drivers[0].kick()
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[0].takeUsed().isEmpty)
    }
}
