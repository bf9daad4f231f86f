import Synchronization

@testable import Devices

/// A device with everything that passing through deals with, and the VM it is in, as far as their function knows them.
///
/// Events are what they are in the kernel: attached they interrupt, detached they count, and what they have counted is one interrupt.
final class HostDevice: PassthroughDevice {
    struct State {
        var configuration: [UInt8]
        var writes: [String] = []
        var armed = InterruptMode.none
        var counts = [UInt64](repeating: 0, count: HostDevice.vectors)
        /// Where vectors lead that are attached in some VM.
        var attached: [Int: @Sendable () -> Void] = [:]
        var isAsserted = false
        var isLineMasked = false
        var memory: [String: UInt64] = [:]
    }

    static let vectors = 5
    static let bars = [
        PassthroughRegion(index: 0, size: 0x8000, mappable: [0..<0x8000]), PassthroughRegion(index: 1, size: 0x100, mappable: []),
        PassthroughRegion(index: 2, size: 0x20, mappable: []), PassthroughRegion(index: 4, size: 1 << 33, mappable: [0..<1 << 33]),
    ]
    let regions = HostDevice.bars
    private let state: Mutex<State>

    /// Offsets of capabilities, in the order of their chain.
    static let power = 0x40, vital = 0x48, messages = 0x50, extended = 0x60, express = 0x70, vendor = 0xB0, unknown = 0xC0

    init() {
        var bytes = [UInt8](repeating: 0, count: 256)
        func set(_ value: UInt64, _ at: Int, _ size: Int) {
            for index in 0..<size { bytes[at + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
        set(0x10D3_8086, 0, 4)
        set(0x0010_0407, 4, 4)
        set(0x0200_0003, 8, 4)
        set(0xFEB0_0000, 0x10, 4)
        set(0xFEB1_0008, 0x14, 4)
        set(0xC001, 0x18, 4)  // ports
        set(0x4_0000_000C, 0x20, 8)
        set(0xA01F_8086, 0x2C, 4)
        set(0xFEB2_0001, 0x30, 4)  // ROM
        set(0x40, 0x34, 1)
        set(0x010B, 0x3C, 2)
        for (at, value) in [
            (Self.power, 0xC823_4801), (Self.vital, 0x5003), (Self.messages, 0x0184_6005), (Self.extended, 0x0004_7011), (Self.express, 0x0002_B010),
            (Self.vendor, 0x0008_C009), (Self.unknown, 0x00FF),
        ] as [(Int, UInt64)] { set(value, at, 4) }
        set(0x0000_2000, Self.extended + 4, 4)
        set(0x0000_3000, Self.extended + 8, 4)
        set(0x0003_1411, Self.express + 0x0C, 4)  // a link
        state = Mutex(State(configuration: bytes))
    }

    var history: [String] { state.withLock { $0.writes } }
    func takeHistory() -> [String] {
        state.withLock { state in
            defer { state.writes = [] }
            return state.writes
        }
    }
    private func record(_ what: String) { state.withLock { $0.writes.append(what) } }

    func vectors(_ mode: InterruptMode) -> Int {
        switch mode {
        case .none: 0
        case .line: 1
        case .message: 4
        case .extended: Self.vectors
        }
    }

    func readConfiguration(at offset: Int, size: Int) -> UInt32 {
        state.withLock { state in (0..<size).reduce(0) { $0 | UInt32(state.configuration[offset + $1]) << UInt32(8 * $1) } }
    }
    func writeConfiguration(_ value: UInt32, at offset: Int, size: Int) {
        record("\(String(offset, radix: 16)).\(size)=\(String(value, radix: 16))")
    }
    func read(bar: Int, at offset: Int, size: Int) -> UInt64 { state.withLock { $0.memory["\(bar) \(offset)"] ?? 0 } }
    func write(_ value: UInt64, bar: Int, at offset: Int, size: Int) { state.withLock { $0.memory["\(bar) \(offset)"] = value } }

    func arm(_ mode: InterruptMode, count: Int) -> Bool {
        record("arm \(mode) \(count)")
        return state.withLock { state in
            guard state.armed == .none else { return false }
            state.armed = mode
            state.isLineMasked = false
            return true
        }
    }
    func disarm(_ mode: InterruptMode) {
        record("disarm \(mode)")
        state.withLock { if $0.armed == mode { $0.armed = .none } }
    }
    func unmaskLine() {
        record("unmask")
        unmask()
    }
    private func unmask() {
        let fires = state.withLock { state in
            state.isLineMasked = state.isAsserted && state.armed == .line
            return state.isLineMasked
        }
        if fires { signal(0) }
    }

    // What the hardware does.

    func raise(_ vector: Int) { if state.withLock({ $0.armed != .none && $0.armed != .line }) { signal(vector) } }

    var isAsserted: Bool {
        get { state.withLock { $0.isAsserted } }
        set {
            let fires = state.withLock { state in
                state.isAsserted = newValue
                guard newValue, state.armed == .line, !state.isLineMasked else { return false }
                state.isLineMasked = true
                return true
            }
            if fires { signal(0) }
        }
    }

    private func signal(_ vector: Int) {
        let action = state.withLock { state -> (@Sendable () -> Void)? in
            if let action = state.attached[vector] { return action }
            state.counts[vector] += 1
            return nil
        }
        action?()
    }

    // What KVM does with its events. False: another VM has it.

    fileprivate func attach(_ vector: Int, _ action: @escaping @Sendable () -> Void) -> Bool {
        let (done, waits) = state.withLock { state in
            guard state.attached[vector] == nil else { return (false, false) }
            state.attached[vector] = action
            defer { state.counts[vector] = 0 }
            return (true, state.counts[vector] > 0)
        }
        if waits { action() }
        return done
    }
    fileprivate func detach(_ vector: Int) { state.withLock { $0.attached[vector] = nil } }
    fileprivate func endOfInterrupt() { unmask() }
    func count(_ vector: Int) -> UInt64 { state.withLock { $0.counts[vector] } }
    fileprivate func forget(_ vector: Int) { state.withLock { $0.counts[vector] = 0 } }
}

/// A VM that a ``HostDevice`` is in.
final class GuestSide: PassthroughHost {
    private struct State {
        var routes: [Int: PCIMessage] = [:]
        var routed: [[Int]] = []
        var taken: [PCIMessage] = []
        var lineInterrupts = 0
        var isInService = false
        var hasLine = false
        var attached: Set<Int> = []
        var places: [String] = []
        var shared: [String] = []
    }
    private let device: HostDevice
    private let state = Mutex(State())

    init(_ device: HostDevice) { self.device = device }

    func place(bar: Int, areas: [Range<UInt64>], at address: UInt64?) {
        let text = areas.map { "\(String($0.lowerBound, radix: 16))-\(String($0.upperBound, radix: 16))" }.joined(separator: " ")
        state.withLock { $0.places.append("\(bar) [\(text)] \(address.map { String($0, radix: 16) } ?? "away")") }
    }
    func share(bar: Int, _ on: Bool) { state.withLock { $0.shared.append("\(bar) \(on)") } }
    func route(_ messages: [VectorMessage]) {
        state.withLock { state in
            for route in messages { state.routes[route.vector] = route.message }
            state.routed.append(messages.map(\.vector))
        }
    }
    func attach(_ vector: Int) -> Bool {
        state.withLock { _ = $0.attached.insert(vector) }
        return device.attach(vector) { [weak self] in
            self?.state.withLock { state in if let message = state.routes[vector] { state.taken.append(message) } }
        }
    }
    func detach(_ vector: Int) {
        state.withLock { _ = $0.attached.remove(vector) }
        device.detach(vector)
    }
    func attachLine() -> Bool {
        state.withLock { $0.hasLine = true }
        return device.attach(0) { [weak self] in
            self?.state.withLock { state in
                state.lineInterrupts += 1
                state.isInService = true
            }
        }
    }
    func detachLine() {
        state.withLock { $0.hasLine = false }
        device.detach(0)
    }
    func isWaiting(_ vector: Int) -> Bool { device.count(vector) > 0 }
    func forget(_ vector: Int) { device.forget(vector) }

    // What the guest sees.

    /// The vectors of each time that routes were set.
    var routed: [[Int]] { state.withLock(\.routed) }
    var attached: [Int] { state.withLock { $0.attached.sorted() } }
    func takeMessages() -> [PCIMessage] {
        state.withLock { state in
            defer { state.taken = [] }
            return state.taken
        }
    }
    func takeLineInterrupts() -> Int {
        state.withLock { state in
            defer { state.lineInterrupts = 0 }
            return state.lineInterrupts
        }
    }
    func takePlaces() -> [String] {
        state.withLock { state in
            defer { state.places = [] }
            return state.places
        }
    }
    var shared: [String] { state.withLock { $0.shared } }
    /// The guest ends a line interrupt: KVM says so to whoever is attached.
    func endOfInterrupt() {
        let isNoticed = state.withLock { state in
            state.isInService = false
            return state.hasLine
        }
        if isNoticed { device.endOfInterrupt() }
    }

    var isLineInService: Bool {
        get { state.withLock { $0.isInService } }
        set { state.withLock { $0.isInService = newValue } }
    }
}

/// A device passed through to a VM, and the next worker's VM with the same device.
struct PassthroughBench: Sendable {
    let device: HostDevice
    let guest: GuestSide
    let function: PassthroughFunction

    /// - Parameter powerOn: as the first worker does.
    init(_ device: HostDevice = HostDevice(), powerOn: Bool = true) {
        self.device = device
        guest = GuestSide(device)
        function = PassthroughFunction(device, host: guest)
        guard powerOn else { return }
        function.powerOn()
        var allocator = PCIBarAllocator(0xC000_0000..<0xE000_0000, high: 0x10_0000_0000..<0x20_0000_0000)
        function.placeBars(with: &allocator)
        function.resume()
    }

    func set(_ value: UInt32, _ offset: Int, _ size: Int) { function.writeConfiguration(value, at: offset, size: size) }
    func get(_ offset: Int, _ size: Int) -> UInt32 { function.readConfiguration(at: offset, size: size) }

    /// What a vector is told to write.
    static func message(_ vector: Int) -> PCIMessage { PCIMessage(address: 0xFEE0_1000, data: UInt32(0x40 + vector)) }

    func setMessage(_ vector: Int, masked: Bool = false) {
        let message = Self.message(vector)
        function.write(message.address, bar: 0, at: 0x2000 + 16 * vector, size: 8)
        function.write(UInt64(message.data), bar: 0, at: 0x2008 + 16 * vector, size: 4)
        mask(vector, masked)
    }
    func mask(_ vector: Int, _ masked: Bool) { function.write(masked ? 1 : 0, bar: 0, at: 0x200C + 16 * vector, size: 4) }
    var pending: UInt64 { function.read(bar: 0, at: 0x3000, size: 8) }

    /// Memory, DMA, and MSI-X with all but the last vector unmasked.
    func drive() {
        set(0x0006, 4, 2)
        set(0xC000, HostDevice.extended + 2, 2)
        for vector in 0..<HostDevice.vectors { setMessage(vector, masked: vector == HostDevice.vectors - 1) }
        set(0x8000, HostDevice.extended + 2, 2)
    }

    /// The next worker's: built beside this one, and given its state. Nothing is resumed.
    func successor() -> PassthroughBench {
        let next = PassthroughBench(device, powerOn: false)
        next.guest.isLineInService = guest.isLineInService
        next.function.anticipate(function.placements, function.messages)
        next.function.restore(function.state())
        return next
    }
}

extension DeviceCases {
    static let passthrough = DeviceCase(
        make: {
            let bench = PassthroughBench(powerOn: false)
            bench.function.powerOn()
            return bench.function
        },
        exercise: { function in
            for (value, offset) in [(0x0406, 4), (0xC123_8000, 0x10), (0x8765_4321, 0x14), (0x6, 0x24), (0x0B, 0x3C), (0xC000_0000, 0x60)] {
                function.writeConfiguration(UInt32(value), at: offset, size: 4)
            }
            for vector in 0..<3 { function.write(UInt64(0xFEE0_1004 + vector << 12), bar: 0, at: 0x2000 + 16 * vector, size: 8) }
            function.write(0, bar: 0, at: 0x200C, size: 4)
        },
        poke: { function in
            for offset in stride(from: 0, to: 256, by: 4) {
                function.writeConfiguration(~function.readConfiguration(at: offset, size: 4), at: offset, size: 4)
            }
            for offset in stride(from: 0x2000, to: 0x3010, by: 4) {
                for size in [1, 2, 4, 8] {
                    function.write(function.read(bar: 0, at: offset, size: size), bar: 0, at: offset, size: size)
                }
            }
        },
        refuses: { !$0.accepts($1) })
}
