import Channel
import Handover
import LinuxSystem
import SystemPackage
import Testing
import Wire

@Suite struct ChannelTests {
    private struct Pair {
        let supervisor: WorkerChannel
        let worker: SupervisorChannel
        /// The worker's end as bare socket, for saying what a worker must not.
        let raw: SharedDescriptor
    }

    private func pair() throws -> Pair {
        let ends = try UnixSocket.sequencedPair()
        let far = ends.far
        return Pair(
            supervisor: WorkerChannel(ends.takeNear()), worker: SupervisorChannel(UnixSocket(try far.descriptor.duplicate())), raw: far)
    }

    private func memory() throws -> SharedDescriptor {
        SharedDescriptor(try MemoryDescriptor(name: "test", size: 4096).takeDescriptor())
    }

    @Test func descriptorsArriveWithTheirMessage() throws {
        let pair = try pair()
        let memory = try memory()
        let order = Order.lend(entries: [ManifestEntry(name: "ram", kind: .guestMemory)], total: 1)
        try pair.supervisor.send(order, generation: 3, sequence: 9, descriptors: [memory])
        let received = try pair.worker.receive(timeout: .seconds(1))
        #expect(received.message.body == order)
        #expect(received.message.envelope.generation == 3)
        #expect(received.descriptors.count == 1)
        #expect(received.descriptors.first?.descriptor.isSameFile(as: memory.descriptor) == true)
    }

    @Test func nothingInTimeIsATimeout() throws {
        let pair = try pair()
        #expect(throws: ChannelError.timedOut) { try pair.supervisor.receive(timeout: .milliseconds(10)) }
    }

    private func sendRaw(_ bytes: [UInt8], _ descriptors: [SharedDescriptor] = [], through raw: SharedDescriptor) throws {
        let socket = UnixSocket(try raw.descriptor.duplicate())
        try socket.send(bytes.span, descriptors: descriptors.map(\.number))
    }

    private func bytes(of report: Report) -> [UInt8] {
        var writer = WireWriter()
        Message(report, generation: 1, sequence: 1).encode(to: &writer)
        return writer.bytes
    }

    @Test func surplusDescriptorsAreRefusedAndClosed() throws {
        let pair = try pair()
        let witness = try UnixSocket.sequencedPair()
        do { try sendRaw(bytes(of: .done), [witness.far], through: pair.raw) }
        let near = WorkerChannel(witness.takeNear())
        #expect(throws: ChannelError.malformed("1 descriptors came with it, 0 belong to it")) {
            try pair.supervisor.receive(timeout: .seconds(1))
        }
        // The end that was sent is closed everywhere.
        #expect(throws: ChannelError.closed) { try near.receive(timeout: .seconds(1)) }
    }

    @Test func missingDescriptorsAreRefused() throws {
        let pair = try pair()
        var writer = WireWriter()
        Message(Order.lend(entries: [ManifestEntry(name: "ram", kind: .guestMemory)], total: 1), generation: 1, sequence: 1).encode(to: &writer)
        // The supervisor's side cannot be made to do this, so the message goes the other way round.
        let reader = SupervisorChannel(UnixSocket(try pair.raw.descriptor.duplicate()))
        let sender = UnixSocket(try pair.supervisor.duplicateSocket())
        try sender.send(writer.bytes.span)
        #expect(throws: ChannelError.malformed("0 descriptors came with it, 1 belong to it")) { try reader.receive(timeout: .seconds(1)) }
    }

    @Test func aMessageThatIsNoneIsRefusedAndTheNextOneRead() throws {
        let pair = try pair()
        try sendRaw([1, 2, 3], through: pair.raw)
        try pair.worker.send(.done, generation: 1, sequence: 2)
        #expect(throws: ChannelError.self) { try pair.supervisor.receive(timeout: .seconds(1)) }
        #expect(try pair.supervisor.receive(timeout: .seconds(1)).message.body == .done)
    }

    @Test func anOverlongMessageIsRefused() throws {
        let pair = try pair()
        try sendRaw([UInt8](repeating: 0, count: Envelope.maximumLength + 100), through: pair.raw)
        #expect(throws: ChannelError.malformed("it did not arrive whole")) { try pair.supervisor.receive(timeout: .seconds(1)) }
    }

    @Test func aPeerThatDoesNotReadMakesNobodyWait() throws {
        let pair = try pair()
        var failure: ChannelError?
        for sequence in 0..<10000 {
            do { try pair.supervisor.send(.health, generation: 1, sequence: UInt32(sequence)) } catch {
                failure = error
                break
            }
        }
        #expect(failure == .system(.wouldBlock))
    }

    @Test func aPeerThatIsGoneIsSeen() throws {
        let ends = try UnixSocket.sequencedPair()
        do { _ = ends.far }
        let channel = WorkerChannel(ends.takeNear())
        #expect(throws: ChannelError.closed) { try channel.receive(timeout: .seconds(1)) }
    }
}
