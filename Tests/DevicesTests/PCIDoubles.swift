import Checkpoint
import GuestMemory
import LinuxSystem
import Synchronization
import SystemPackage
import Wire

@testable import Devices

/// Remembers messages in the order in which they were sent.
final class RecordedMessages: MessageSink {
    struct Message: Equatable {
        let address: UInt64
        let data: UInt32
    }
    private let list = Mutex<[Message]>([])
    func send(address: UInt64, data: UInt32) { list.withLock { $0.append(Message(address: address, data: data)) } }
    var all: [Message] { list.withLock { $0 } }
    func take() -> [Message] {
        list.withLock { list in
            defer { list = [] }
            return list
        }
    }
}

/// Remembers where doorbells hang.
final class RecordedDoorbells: DoorbellRegistry {
    private let state = Mutex<(hung: Set<UInt64>, calls: Int)>(([], 0))
    func attach(_ doorbell: Doorbell, at address: UInt64) -> Bool {
        state.withLock { state in
            state.calls += 1
            return state.hung.insert(address).inserted
        }
    }
    func detach(_ doorbell: Doorbell, at address: UInt64) {
        state.withLock { state in
            state.calls += 1
            state.hung.remove(address)
        }
    }
    var hung: [UInt64] { state.withLock { $0.hung.sorted() } }
    var calls: Int { state.withLock { $0.calls } }
}

/// A back end that does nothing but remember what was asked of it.
final class IdleDevice: VirtioDevice {
    struct State: DeviceState {
        static let section = SectionRange("idle", writes: 1...1, reads: 1...1)
        init() {}
        init(from reader: inout WireReader, version: UInt16) throws(WireError) {}
        func encode(to writer: inout WireWriter, version: UInt16) {}
    }

    let kind = VirtioKind.block
    let features = VirtioFeatures(rawValue: 1 << 5)
    let queueSizes: [UInt16]
    private let calls = Mutex<[String]>([])
    private let content = Mutex<[UInt8]>(Array(1...12))

    init(queueSizes: [UInt16] = [8, 16]) { self.queueSizes = queueSizes }

    var history: [String] { calls.withLock { $0 } }
    private func record(_ call: String) { calls.withLock { $0.append(call) } }

    func configuration() -> [UInt8] { content.withLock { $0 } }
    func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        content.withLock { content in for (index, byte) in bytes.enumerated() where offset + index < content.count { content[offset + index] = byte }
        }
    }
    func start(_ connection: VirtioConnection) throws(Errno) { record("start") }
    func activate(_ features: VirtioFeatures) { record("activate \(features.rawValue)") }
    func reset() { record("reset") }
    func hold() {}
    func drain(until deadline: Int64) -> Bool { true }
    func resume() {}
    func finish() {}
    func state() -> State { State() }
    func restore(_ state: State) {}
}

/// A virtio function on a bus, as a driver finds it by ECAM.
final class FunctionBench {
    static let base: UInt64 = 0xC000_0000
    let device: IdleDevice
    let messages = RecordedMessages()
    let doorbells = RecordedDoorbells()
    let memory: GuestMemory
    let function: VirtioPCIFunction
    let bus: PCIBus
    let memoryBus: MMIOBus
    private let lines: RecordedLines

    final class RecordedLines: Sendable {
        private let list = Mutex<[String]>([])
        func append(_ line: String) { list.withLock { $0.append(line) } }
        var all: [String] { list.withLock { $0 } }
    }

    init(_ device: IdleDevice = IdleDevice(), memory shared: GuestMemory? = nil) throws {
        self.device = device
        let size = 1 << 20
        let memory =
            if let shared { shared } else {
                GuestMemory(
                    GuestMemoryLayout(size: size),
                    mapping: try SharedMapping(of: MemoryDescriptor(name: "ram", size: size).descriptor, length: size))
            }
        self.memory = memory
        let lines = RecordedLines()
        self.lines = lines
        function = try VirtioPCIFunction(
            device, name: "test/d0", memory: memory, messages: messages, doorbells: doorbells, log: { lines.append($0) })
        bus = PCIBus([HostBridge(), function])
        memoryBus = MMIOBus([MMIOWindow(bus, size: PCIBus.configurationSize, at: 0xE000_0000)] + bus.all.flatMap(\.windows))
    }

    var log: [String] { lines.all }

    // Configuration space of 00:01.0.

    func configuration(_ offset: Int, _ size: Int = 4) -> UInt32 {
        UInt32(truncatingIfNeeded: memoryBus.read(address: 0xE000_8000 + UInt64(offset), size: size)) & UInt32.max >> UInt32(32 - 8 * size)
    }
    func setConfiguration(_ value: UInt32, _ offset: Int, _ size: Int = 4) {
        memoryBus.write(UInt64(value), address: 0xE000_8000 + UInt64(offset), size: size)
    }

    /// Places the BAR and enables memory accesses, interrupts and everything.
    func enable() {
        bus.placeBars(in: Self.base..<Self.base + 1 << 20)
        setConfiguration(0x0406, 0x04, 2)
        setConfiguration(0x8000, 0x42, 2)
    }

    // BAR 0.

    func read(_ offset: Int, _ size: Int) -> UInt64 { memoryBus.read(address: Self.base + UInt64(offset), size: size) }
    func write(_ value: UInt64, _ offset: Int, _ size: Int) { memoryBus.write(value, address: Self.base + UInt64(offset), size: size) }

    var status: UInt64 {
        get { read(0x14, 1) }
        set { write(newValue, 0x14, 1) }
    }

    func negotiate(_ features: UInt64) {
        for half in 0..<2 as Range<UInt64> {
            write(half, 0x08, 4)
            write(features >> (32 * half) & 0xFFFF_FFFF, 0x0C, 4)
        }
    }

    /// A vector's message: address 0xFEE0_0000 and its number as data.
    func setMessage(_ vector: Int, masked: Bool = false) {
        write(0xFEE0_0000, 0x4000 + 16 * vector, 8)
        write(UInt64(vector), 0x4008 + 16 * vector, 4)
        write(masked ? 1 : 0, 0x400C + 16 * vector, 4)
    }

    func setQueue(_ index: Int, size: Int, descriptors: UInt64, available: UInt64, used: UInt64, vector: Int) {
        write(UInt64(index), 0x16, 2)
        write(UInt64(size), 0x18, 2)
        write(UInt64(vector), 0x1A, 2)
        write(descriptors, 0x20, 8)
        write(available & 0xFFFF_FFFF, 0x28, 4)
        write(available >> 32, 0x2C, 4)
        write(used, 0x30, 8)
        write(1, 0x1C, 2)
    }

    /// All that a driver does to begin: two queues, three vectors.
    func drive(features: UInt64 = 1 << 32) {
        enable()
        for vector in 0..<3 { setMessage(vector) }
        status = 1
        status = 3
        negotiate(features)
        status = 11
        write(0, 0x10, 2)
        setQueue(0, size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000, vector: 1)
        setQueue(1, size: 4, descriptors: 0x4000, available: 0x5000, used: 0x6000, vector: 2)
        status = 15
    }
}
