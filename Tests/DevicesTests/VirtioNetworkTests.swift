import Devices
import Glibc
import GuestMemory
import LinuxSystem
import SystemPackage
import TapTestSupport
import Testing

/// Queues of a tap that are sockets: what the other end sends is a packet, and the other end gets what is sent.
struct TestTaps {
    let far: [SharedDescriptor]
    let near: [SharedDescriptor]

    init(_ count: Int) throws {
        var far: [SharedDescriptor] = []
        var near: [SharedDescriptor] = []
        for _ in 0..<count {
            let pair = try UnixSocket.sequencedPair()
            far.append(pair.far)
            near.append(SharedDescriptor(pair.takeNear().takeDescriptor()))
        }
        for end in far + near { try end.descriptor.setNonBlocking(true) }
        self.far = far
        self.near = near
    }

    /// A packet of the network's: header of 12 bytes, then `count` bytes that tell its number.
    static func packet(_ number: Int, _ count: Int = 100) -> [UInt8] {
        [UInt8](repeating: 0, count: 12) + (0..<count).map { UInt8(truncatingIfNeeded: $0 / 256 + $0 + number * 7) }
    }
    func send(_ packet: [UInt8], queue: Int = 0) throws { #expect(try near[queue].descriptor.write(packet.span) == packet.count) }
    func receive(queue: Int = 0) throws -> [UInt8] {
        #expect(try Poll.one(near[queue].number, timeout: .seconds(5)))
        return try near[queue].descriptor.read(upTo: 1 << 17)
    }
    func isQuiet(queue: Int = 0) throws -> Bool { try !Poll.one(near[queue].number, timeout: .milliseconds(20)) }
}

private let address: [UInt8] = [0x52, 0x54, 0, 1, 2, 3]

extension VirtioBench where D == VirtioNetwork {
    /// Gives `count` buffers to receive into; where they are, by head.
    @discardableResult
    fileprivate func give(_ count: Int, of size: Int = 1536, queue: Int = 0) throws -> [UInt16: UInt64] {
        var rooms: [UInt16: UInt64] = [:]
        for _ in 0..<count {
            let (head, room) = try drivers[queue].add(sending: [], receiving: [size])
            rooms[head] = room[0]
        }
        drivers[queue].kick()
        return rooms
    }

    /// What the device has put into buffers, each with its length.
    fileprivate func received(_ count: Int, _ rooms: [UInt16: UInt64], queue: Int = 0) throws -> [[UInt8]] {
        try used(count, of: queue).map { try memory.read(at: try #require(rooms[$0.head]), count: $0.written) }
    }

    fileprivate func send(_ pieces: [[UInt8]], queue: Int = 1) throws {
        try drivers[queue].add(sending: pieces)
        drivers[queue].kick()
    }

    /// A command; its answer.
    fileprivate func command(_ bytes: [UInt8], queue: Int) throws -> UInt8 {
        let (_, rooms) = try drivers[queue].add(sending: [bytes], receiving: [1])
        drivers[queue].kick()
        #expect(try used(1, of: queue).map(\.written) == [1])
        return try memory.read(at: rooms[0])
    }

    fileprivate func settle() {
        device.hold()
        #expect(device.drain(until: SystemClock.monotonic() + 5_000_000_000))
        #expect(queues.allSatisfy { $0.inFlight == 0 })
    }
}

@Suite struct `A virtio network device` {
    let taps: TestTaps
    let bench: VirtioBench<VirtioNetwork>

    init() throws {
        taps = try TestTaps(1)
        bench = try VirtioBench(VirtioNetwork(taps: taps.far, mac: address, mtu: 1500))
        bench.device.resume()
    }

    @Test func `its configuration says address, link, queues and MTU`() {
        #expect(bench.device.configuration() == address + [1, 0, 1, 0, 0xDC, 5])
        #expect(!bench.device.features.contains(.networkControl) && bench.device.queueSizes == [1024, 512])
    }

    @Test func `what the driver sends goes out, in pieces of any size`() throws {
        let packet = TestTaps.packet(1)
        try bench.send([Array(packet[..<5]), Array(packet[5..<12]), Array(packet[12...])])
        #expect(try taps.receive() == packet)
        #expect(try bench.used(1, of: 1).map(\.written) == [0])
    }

    @Test func `what comes lands in a buffer, and waits in the tap until there is one`() throws {
        for number in 0..<5 { try taps.send(TestTaps.packet(number)) }
        let rooms = try bench.give(100)
        let packets = try bench.received(5, rooms)
        for (number, packet) in packets.enumerated() {
            var expected = TestTaps.packet(number)
            expected[10] = 1
            #expect(packet == expected)
        }
    }

    @Test func `a long packet takes as many buffers as it needs, and says so in the first`() throws {
        let rooms = try bench.give(100)
        try taps.send(TestTaps.packet(3, 5000))
        var packet = try bench.received(4, rooms)
        #expect(packet.map(\.count) == [1536, 1536, 1536, 5012 - 3 * 1536])
        #expect(packet[0][10] == 4 && packet[0][11] == 0)
        packet[0][10] = 0
        #expect(packet.flatMap { $0 } == TestTaps.packet(3, 5000))
    }

    @Test func `a packet is not cut while the driver may give more room, and is in the end`() throws {
        let few = try bench.give(2)
        try taps.send(TestTaps.packet(1, 5000))
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[0].takeUsed().isEmpty)
        let more = try bench.give(60)
        #expect(try bench.received(4, few.merging(more) { old, _ in old }).count == 4)
        try taps.send(TestTaps.packet(2, 60))
        #expect(try bench.received(1, few.merging(more) { old, _ in old })[0].count == 72, "after a while")
    }

    @Test func `several packets at once are told with one interrupt`() throws {
        let rooms = try bench.give(200)
        bench.settle()
        for number in 0..<20 { try taps.send(TestTaps.packet(number)) }
        bench.device.resume()
        #expect(try bench.received(20, rooms).count == 20)
        #expect(bench.transport.interrupts(of: 0) == 1)
    }

    @Test func `held, packets stay in the tap and in the ring, and go on without a kick`() throws {
        let rooms = try bench.give(100)
        bench.settle()
        try taps.send(TestTaps.packet(1))
        try bench.send([TestTaps.packet(2)])
        #expect(try taps.isQuiet())
        #expect(try bench.drivers[0].takeUsed().isEmpty && bench.drivers[1].takeUsed().isEmpty)
        bench.device.resume()
        #expect(try bench.received(1, rooms).count == 1)
        #expect(try taps.receive() == TestTaps.packet(2))
    }

    @Test func `none is lost, doubled or overtaken, however often it is held`() throws {
        let rooms = try bench.give(600, of: 1536)
        for number in 0..<200 {
            try taps.send(TestTaps.packet(number))
            try bench.send([TestTaps.packet(number)])
            bench.settle()
            bench.device.resume()
        }
        let packets = try bench.received(200, rooms)
        #expect(packets.map { $0[12...] } == (0..<200).map { TestTaps.packet($0)[12...] })
        for number in 0..<200 { #expect(try taps.receive() == TestTaps.packet(number)) }
    }

    @Test func `a tap that takes nothing keeps what is sent in the ring`() throws {
        let packet = TestTaps.packet(1, 60000)
        for _ in 0..<500 { try bench.drivers[1].add([.init(address: bench.spare, count: packet.count, isWritable: false)]) }
        try bench.memory.write(packet, at: bench.spare)
        bench.drivers[1].kick()
        SystemClock.sleep(.milliseconds(50))
        let taken = try bench.drivers[1].takeUsed().count
        #expect(taken < 500)
        bench.settle()
        bench.device.resume()
        for _ in 0..<500 { #expect(try taps.receive() == packet) }
        #expect(try bench.used(500 - taken, of: 1).count == 500 - taken)
    }

    @Test func `a reset takes back what was popped ahead`() throws {
        try bench.give(100)
        #expect(bench.wait { bench.queues[0].inFlight > 0 })
        bench.reset()
        #expect(bench.wait { bench.queues[0].inFlight == 0 })
        try taps.send(TestTaps.packet(1))
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[0].takeUsed().isEmpty)
    }

    @Test func `a packet longer than any is dropped, and the next one goes`() throws {
        try bench.drivers[1].add([.init(address: bench.spare, count: 70000, isWritable: false)])
        try bench.drivers[1].add([.init(address: bench.spare, count: 3 << 20, isWritable: false)])
        try bench.send([TestTaps.packet(2)])
        #expect(try taps.receive() == TestTaps.packet(2))
        #expect(try bench.used(3, of: 1).count == 3)
    }

    @Test func `a receive buffer without room stops the device, and is said`() throws {
        try bench.drivers[0].add(sending: [[1, 2, 3]])
        bench.drivers[0].kick()
        #expect(bench.wait { bench.transport.fault == "a receive buffer without room" })
        bench.settle()
    }

    @Test func `a tap that is gone is said, and sending goes on into nothing`() throws {
        let taps = try TestTaps(1)
        let bench = try VirtioBench(VirtioNetwork(taps: taps.far, mac: address, mtu: 1500))
        bench.device.resume()
        try bench.give(100)
        #expect(shutdown(taps.near[0].number, Int32(SHUT_RDWR)) == 0)
        SystemClock.sleep(.milliseconds(20))
        bench.settle()
        #expect(!bench.transport.hasFailed)
    }
}

@Suite struct `A virtio network device without mergeable buffers` {
    let taps: TestTaps
    let bench: VirtioBench<VirtioNetwork>

    init() throws {
        taps = try TestTaps(1)
        bench = try VirtioBench(VirtioNetwork(taps: taps.far, mac: address, mtu: 1500), accepting: [.networkAddress])
        bench.device.resume()
    }

    @Test func `a packet takes one buffer, and one too long is cut`() throws {
        let rooms = try bench.give(3)
        try taps.send(TestTaps.packet(1))
        try taps.send(TestTaps.packet(2, 3000))
        try taps.send(TestTaps.packet(3))
        let packets = try bench.received(3, rooms)
        #expect(packets.map(\.count) == [112, 1536, 112] && packets.allSatisfy { $0[10] == 1 })
    }
}

@Suite struct `A virtio network device's queue pairs` {
    let taps: TestTaps
    let bench: VirtioBench<VirtioNetwork>
    let control: Int

    init() throws {
        taps = try TestTaps(3)
        bench = try VirtioBench(VirtioNetwork(taps: taps.far, mac: address, mtu: 1500))
        bench.device.resume()
        control = 6
    }

    private func give(_ count: Int) throws -> [[UInt16: UInt64]] { try (0..<3).map { try bench.give(count, queue: 2 * $0) } }

    @Test func `one is used until the driver asks for more, and as many as it asks for`() throws {
        let rooms = try give(100)
        for queue in 0..<3 { try taps.send(TestTaps.packet(queue), queue: queue) }
        #expect(try bench.received(1, rooms[0]).count == 1)
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[2].takeUsed().isEmpty && bench.drivers[4].takeUsed().isEmpty)
        #expect(try bench.command([4, 0, 2, 0], queue: control) == 0)
        #expect(try bench.received(1, rooms[1], queue: 2).count == 1)
        #expect(try bench.drivers[4].takeUsed().isEmpty)
        #expect(try bench.command([4, 0, 3, 0], queue: control) == 0)
        #expect(try bench.received(1, rooms[2], queue: 4).count == 1)
        #expect(bench.device.state() == VirtioNetworkState(pairsInUse: 3))
        #expect(try bench.command([4, 0, 1, 0], queue: control) == 0)
        try taps.send(TestTaps.packet(9), queue: 2)
        SystemClock.sleep(.milliseconds(20))
        #expect(try bench.drivers[4].takeUsed().isEmpty)
    }

    @Test func `what the state says is in use again`() throws {
        let rooms = try give(100)
        bench.settle()
        bench.device.restore(VirtioNetworkState(pairsInUse: 2))
        try taps.send(TestTaps.packet(1), queue: 1)
        bench.device.resume()
        #expect(try bench.received(1, rooms[1], queue: 2).count == 1)
        bench.reset()
        #expect(bench.device.state().pairsInUse == 1 && bench.wait { bench.queues.allSatisfy { $0.inFlight == 0 } })
    }

    @Test(arguments: [
        [], [4], [4, 0], [4, 0, 1], [4, 0, 0, 0], [4, 0, 4, 0], [4, 0, 1, 1], [4, 1, 1, 0], [0, 0, 1], [255, 255, 255, 255], [4, 0, 1, 0, 0],
    ])
    func `what is no command it knows is answered so`(_ command: [UInt8]) throws {
        let bytes = command.isEmpty ? [UInt8](repeating: 3, count: 4000) : command
        #expect(try bench.command(bytes, queue: control) == 1)
        #expect(bench.device.state().pairsInUse == 1)
    }

    @Test func `a command without room for its answer stops the device`() throws {
        try bench.drivers[control].add(sending: [[4, 0, 2, 0]])
        bench.drivers[control].kick()
        #expect(bench.wait { bench.transport.fault == "a network command without room for its answer" })
    }

    @Test func `where the driver knows one pair, commands come by the third queue`() throws {
        let taps = try TestTaps(3)
        let bench = try VirtioBench(VirtioNetwork(taps: taps.far, mac: address, mtu: 1500), accepting: [.networkControl, .networkMergeableBuffers])
        bench.device.resume()
        #expect(try bench.command([4, 0, 2, 0], queue: 2) == 1)
        let rooms = try bench.give(100)
        try taps.send(TestTaps.packet(1))
        #expect(try bench.received(1, rooms).count == 1)
    }
}

private func canMakeTaps() -> Bool {
    let tap = test_tap_open()
    if tap.error == 0 { for number in [tap.queues.0, tap.queues.1, tap.host] { _ = OwnedDescriptor(owning: number) } }
    return tap.error == 0
}

@Suite(.enabled(if: canMakeTaps(), "no taps can be made here: /dev/net/tun or CAP_NET_ADMIN is missing"))
struct `A virtio network device on a tap` {
    let queues: [SharedDescriptor]
    let host: SharedDescriptor

    init() throws {
        let tap = test_tap_open()
        try #require(tap.error == 0)
        queues = [SharedDescriptor(OwnedDescriptor(owning: tap.queues.0)), SharedDescriptor(OwnedDescriptor(owning: tap.queues.1))]
        host = SharedDescriptor(OwnedDescriptor(owning: tap.host))
    }

    /// A frame of a type that nobody knows, so that nothing but a test takes it.
    private static func frame(_ number: UInt8, _ count: Int = 60) -> [UInt8] {
        [0x52, 0x54, 0, 1, 2, 3, 2, 0, 0, 0, 0, 1, 0x88, 0xB5] + [UInt8](repeating: number, count: count - 14)
    }

    /// The next frame that is not the kernel's own.
    private func hostReceives() throws -> [UInt8] {
        while true {
            guard try Poll.one(host.number, timeout: .seconds(5)) else { return [] }
            let frame = try host.descriptor.read(upTo: 4096)
            if frame.count > 14 && frame[12...13] == [0x88, 0xB5] { return frame }
        }
    }

    @Test func `frames go both ways, through handing over, whatever offloads are accepted`() throws {
        for features in [[.networkMergeableBuffers], VirtioNetwork(taps: queues, mac: address, mtu: 1500).features] as [VirtioFeatures] {
            let bench = try VirtioBench(VirtioNetwork(taps: queues, mac: address, mtu: 1500), accepting: features)
            bench.device.resume()
            let rooms = try bench.give(500)
            for number in 0..<50 as Range<UInt8> {
                try bench.send([[UInt8](repeating: 0, count: 12) + Self.frame(number)])
                #expect(try hostReceives() == Self.frame(number))
                let frame = Self.frame(number | 0x80)
                #expect(try host.descriptor.write(frame.span) == frame.count)
                if number % 10 == 0 {
                    bench.settle()
                    bench.device.resume()
                }
            }
            var seen: [[UInt8]] = []
            while seen.count < 50 {
                let packets = try bench.received(1, rooms)
                try #require(!packets.isEmpty)
                seen += packets.filter { $0[24...25] == [0x88, 0xB5] }.map { Array($0[12...]) }
            }
            #expect(seen == (0..<50).map { Self.frame($0 | 0x80) })
        }
    }

    @Test func `queues are attached and detached as the driver asks`() throws {
        let bench = try VirtioBench(VirtioNetwork(taps: queues, mac: address, mtu: 1500))
        bench.device.resume()
        #expect(try bench.command([4, 0, 1, 0], queue: 4) == 0)
        #expect(throws: Errno.invalidArgument, "it is detached already") { try queues[1].descriptor.attachTapQueue(false) }
        #expect(try bench.command([4, 0, 2, 0], queue: 4) == 0)
        #expect(throws: Errno.invalidArgument, "it is attached already") { try queues[1].descriptor.attachTapQueue(true) }
        bench.settle()
        bench.device.resume()
        #expect(throws: Errno.invalidArgument) { try queues[1].descriptor.attachTapQueue(true) }
    }
}
