import LinuxSystem
import SystemPackage

@testable import Devices

/// A virtio back end with queues and a driver, as a device of the suite.
final class HeldBackEnd<D: VirtioDevice>: Device, @unchecked Sendable {
    // One test at a time has it.
    let bench: VirtioBench<D>
    init(_ bench: VirtioBench<D>) { self.bench = bench }

    func quiesce() {
        bench.device.hold()
        precondition(bench.device.drain(until: .max), "it is drained some time")
    }
    func resume() { bench.device.resume() }
    func state() -> D.State { bench.device.state() }
    func restore(_ state: D.State) { bench.device.restore(state) }

    /// Rings every doorbell with a buffer of each kind behind it.
    func poke() {
        for driver in bench.drivers {
            _ = try? driver.add(sending: [Array(repeating: 1, count: 24)])
            _ = try? driver.add(sending: [], receiving: [24])
            driver.kick()
        }
        SystemClock.sleep(.microseconds(100))
    }
}

/// The transport of a virtio device.
final class HeldTransport: Device, @unchecked Sendable {
    // One test at a time has it.
    let bench: FunctionBench
    init(_ bench: FunctionBench) { self.bench = bench }

    func quiesce() { bench.function.hold() }
    func resume() { bench.function.resume() }
    func state() -> VirtioState { bench.function.state.transport }
    func restore(_ state: VirtioState) {
        bench.function.restore(VirtioFunctionState(function: bench.function.state.function, transport: state))
    }

    func poke() {
        let window = bench.function.windows[0]
        for queue in bench.function.registers.queues { while queue.pop() != nil {} }
        for offset in stride(from: 0, to: 0x38, by: 2) {
            for size in [1, 2, 4, 8] {
                _ = window.device.read(at: offset, size: size)
                window.device.write(0x5A5A, at: offset, size: size)
            }
        }
    }
}

/// Configuration space and MSI-X of a function.
final class HeldEndpoint: Device {
    let messages = RecordedMessages()
    let endpoint: PCIEndpoint

    private final class Nothing: MMIODevice {
        func read(at offset: Int, size: Int) -> UInt64 { 0 }
        func write(_ value: UInt64, at offset: Int, size: Int) {}
    }

    init() {
        let bars = [PCIBar(index: 0, size: 4096), PCIBar(index: 2, size: 1 << 20, is64Bit: true, isPrefetchable: true)]
        endpoint = PCIEndpoint(
            PCIIdentity(vendor: 1, device: 2, classCode: 0xFF_0000),
            regions: bars.map { PCIEndpoint.Region($0, MMIOWindow(Nothing(), size: $0.size)) },
            messages: (MSIXTable(count: 3, sink: messages), 0, 0, 0x800))
    }

    func quiesce() {}
    func resume() {}
    func state() -> PCIFunctionState { endpoint.state }
    func restore(_ state: PCIFunctionState) { endpoint.restore(state) }

    func exercise() {
        for (value, offset) in [(0x0406, 4), (0xC123_4567, 0x10), (0x8765_4321, 0x18), (0x12, 0x1C), (0x0B, 0x3C), (0xC000_0000, 0x40)] {
            endpoint.writeConfiguration(UInt32(value), at: offset, size: 4)
        }
        for vector in 0..<3 { endpoint.messages?.writeTable(UInt64(0xFEE0_1004 + vector << 12), at: 16 * vector, size: 8) }
        for vector in 0..<2 { endpoint.messages?.signal(vector) }
    }

    func poke() {
        for offset in stride(from: 0, to: 256, by: 4) {
            endpoint.writeConfiguration(~endpoint.readConfiguration(at: offset, size: 4), at: offset, size: 4)
        }
        for vector in 0..<3 { endpoint.messages?.signal(vector) }
    }
}

/// The way to configuration space by ports.
final class HeldBus: Device {
    let bus = PCIBus([HostBridge()])
    func quiesce() {}
    func resume() {}
    func state() -> PCIBusState { bus.state }
    func restore(_ state: PCIBusState) { bus.restore(state) }
    func poke() {
        for port in bus.ports.joined() {
            for size in [1, 2, 4] {
                bus.write(bus.read(port: port, size: size), port: port, size: size)
            }
        }
    }
}

extension DeviceCases {
    static let bus = DeviceCase(
        make: { HeldBus() }, exercise: { $0.bus.write(0x8000_1234, port: 0xCF8, size: 4) }, poke: { $0.poke() })
    static let endpoint = DeviceCase(
        make: { HeldEndpoint() }, exercise: { $0.exercise() }, poke: { $0.poke() },
        refuses: { !$0.endpoint.accepts($1) })
    static let transport = DeviceCase(
        make: { HeldTransport(try! FunctionBench()) },
        exercise: { held in
            held.bench.drive(features: 1 << 32 | 1 << 29)
            held.bench.write(1, 0x00, 4)
            held.bench.function.registers.interrupts.configurationChanged()
        },
        poke: { $0.poke() },
        refuses: { held, state in
            held.bench.function.hasFailed
                || !held.bench.function.accepts(VirtioFunctionState(function: held.bench.function.state.function, transport: state))
        })
    static let entropy = DeviceCase(
        make: { HeldBackEnd(try! VirtioBench(VirtioEntropy())) },
        exercise: { held in
            _ = try? held.bench.drivers[0].add(sending: [], receiving: [16, 5])
            held.bench.drivers[0].kick()
            _ = try? held.bench.used(1)
        },
        poke: { $0.poke() }, refuses: { held, _ in held.bench.transport.hasFailed })
    static let console = DeviceCase(
        make: { HeldBackEnd(try! VirtioBench(VirtioConsole(["terminal", "data"].map { ($0, ConsoleStream.full!.near) }))) },
        exercise: { held in
            // There is no buffer for the answers, and nobody takes what is sent.
            let messages: [[UInt8]] = [[0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 3, 0, 1, 0], [1, 0, 0, 0, 6, 0, 1, 0]]
            for message in messages { _ = try? held.bench.drivers[3].add(sending: [message]) }
            held.bench.drivers[3].kick()
            _ = try? held.bench.used(3, of: 3)
            _ = try? held.bench.drivers[1].add(sending: [Array("login: ".utf8)])
            held.bench.drivers[1].kick()
            _ = try? held.bench.used(1, of: 1)
        },
        poke: { $0.poke() }, refuses: { held, _ in held.bench.transport.hasFailed })
    static let disk = DeviceCase(
        make: { HeldBackEnd(try! VirtioBench(VirtioBlock(try TestDisk(), serial: "baton", queues: 1))) },
        // What a driver was told stays true, whatever the file's size is by now.
        exercise: { $0.bench.device.restore(VirtioBlockState(size: 4096 * 512, blockSize: 4096)) },
        poke: { $0.poke() }, refuses: { held, _ in held.bench.transport.hasFailed })

    static let virtio: [any AnyDeviceCase] = [bus, endpoint, transport, entropy, console, disk]
}

enum ConsoleStream {
    /// A stream that takes no byte, and whose other end stays open.
    static let full: (near: SharedDescriptor, far: SharedDescriptor)? = {
        guard let pair = try? UnixSocket.streamPair() else { return nil }
        let far = pair.far
        let near = SharedDescriptor(pair.takeNear().takeDescriptor())
        try? near.descriptor.setNonBlocking(true)
        let bytes = [UInt8](repeating: 0, count: 4096)
        while (try? near.descriptor.write(bytes.span)) != nil {}
        while (try? near.descriptor.write(bytes.span.extracting(0..<1))) != nil {}
        return (near, far)
    }()
}
