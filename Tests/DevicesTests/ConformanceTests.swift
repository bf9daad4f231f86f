import Checkpoint
import Devices
import LinuxSystem
import Testing
import Wire

/// One device under the conformance suite: how to make one, and how to bring it into a state worth saving.
struct DeviceCase<D: Device>: Sendable {
    let make: @Sendable () -> D
    let exercise: @Sendable (D) -> Void
    /// Touches it everywhere, as a guest may.
    let poke: @Sendable (D) -> Void
    /// Whether it has said that a state makes no sense.
    let refuses: @Sendable (D, D.State) -> Bool

    init(
        make: @escaping @Sendable () -> D, exercise: @escaping @Sendable (D) -> Void, poke: @escaping @Sendable (D) -> Void,
        refuses: @escaping @Sendable (D, D.State) -> Bool = { _, _ in false }
    ) {
        self.make = make
        self.exercise = exercise
        self.poke = poke
        self.refuses = refuses
    }
}

extension DeviceCase where D: PortDevice {
    init(make: @escaping @Sendable () -> D, exercise: @escaping @Sendable (D) -> Void) {
        self.init(make: make, exercise: exercise) { device in
            for port in device.ports.joined() { _ = device.read(port: port) }
            for port in device.ports.joined() { device.write(0x5A, port: port) }
        }
    }
}

/// A device of any kind, for parameterised tests.
protocol AnyDeviceCase: Sendable, CustomTestStringConvertible {
    var section: SectionRange { get }
    func checkRestoring(version: UInt16) throws
    func checkQuiescing()
    func checkGolden(_ bytes: [UInt8]) throws
    func checkTruncatedContent(version: UInt16) throws
    func checkDamagedContent(version: UInt16) throws
}

private let machine = MachineID(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908)

private func checkpoint<S: DeviceState>(_ state: S, version: UInt16) -> [UInt8] {
    var writer = CheckpointWriter()
    writer.begin(writer: "0.1.0", machine: machine, generation: 7)
    state.save(to: &writer, versions: SectionVersions([S.section.name: version]))
    return writer.finish()
}

private func state<S: DeviceState>(_ bytes: [UInt8]) throws -> S {
    try S(from: CheckpointReader(bytes, expecting: nil, understanding: [S.section]))
}

extension DeviceCase: AnyDeviceCase {
    var section: SectionRange { D.State.section }
    var testDescription: String { D.State.section.name }

    private func exercised() -> D {
        let device = make()
        device.resume()
        exercise(device)
        device.quiesce()
        return device
    }

    func checkRestoring(version: UInt16) throws {
        let saved = checkpoint(exercised().state(), version: version)
        let second = make()
        #expect(second.state() != exercised().state(), "the exercise left no trace")
        second.restore(try state(saved))
        #expect(checkpoint(second.state(), version: version) == saved)
        second.quiesce()
        #expect(checkpoint(second.state(), version: version) == saved)
        if version == section.writes.upperBound { #expect(second.state() == exercised().state()) }
    }

    func checkQuiescing() {
        let device = exercised()
        let once = device.state()
        device.quiesce()
        #expect(device.state() == once)
        device.resume()
        device.quiesce()
        #expect(device.state() == once)
    }

    func checkGolden(_ bytes: [UInt8]) throws {
        let inspection = try CheckpointInspection(bytes)
        let version = try #require(inspection.sections.first).description.version
        let device = make()
        device.restore(try state(bytes))
        #expect(checkpoint(device.state(), version: version) == bytes)
        for length in 0..<bytes.count { #expect(throws: CheckpointError.self) { let _: D.State = try state(Array(bytes[..<length])) } }
        for bit in 0..<8 * bytes.count {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: CheckpointError.self) { let _: D.State = try state(damaged) }
        }
    }

    private func content(version: UInt16) -> [UInt8] {
        var writer = WireWriter()
        exercised().state().encode(to: &writer, version: version)
        return writer.bytes
    }

    private func decode(_ content: [UInt8], version: UInt16) throws(WireError) -> D.State {
        var reader = WireReader(content)
        let state = try D.State(from: &reader, version: version)
        try reader.finish()
        return state
    }

    func checkTruncatedContent(version: UInt16) throws {
        let content = content(version: version)
        _ = try decode(content, version: version)
        for length in 0..<content.count { #expect(throws: WireError.self) { try decode(Array(content[..<length]), version: version) } }
        #expect(throws: WireError.self) { try decode(content + [0], version: version) }
    }

    /// With the checksums made right again damage may be a state. Then the device must live with it.
    func checkDamagedContent(version: UInt16) throws {
        let content = content(version: version)
        for bit in 0..<8 * content.count {
            var damaged = content
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            guard let state = try? decode(damaged, version: version) else { continue }
            let device = make()
            device.restore(state)
            #expect(device.state() == state || refuses(device, state))
            device.resume()
            poke(device)
            device.quiesce()
        }
    }
}

enum DeviceCases {
    static let serial = DeviceCase(
        make: {
            let sink = RecordedSink()
            sink.setRoom(0)
            return Serial8250(interrupt: InterruptLine(4, of: RecordedInterrupts()), sink: sink, time: ManualTime())
        },
        exercise: { port in
            for (offset, value) in [(1, 0x0F), (2, 0xC7), (3, 0x1B), (4, 0x0B), (7, 0x42)] as [(UInt16, UInt8)] {
                port.write(value, port: 0x3F8 + offset)
            }
            port.receive(Array("0123456789abcdefX".utf8))  // one too many
            for byte in "prompt> ".utf8 { port.write(byte, port: 0x3F8) }
        })
    static let pit = DeviceCase(
        make: { PIT8254(interrupt: InterruptLine(0, of: RecordedInterrupts()), time: ManualTime(), timer: ManualTimer()) },
        exercise: { pit in
            for value in [0x34, 0x74, 0xB0, 0xE2] as [UInt8] { pit.write(value, port: 0x43) }
            for (port, value) in [(0x40, 0x9C), (0x40, 0x2E), (0x41, 0x12), (0x61, 1), (0x42, 0xFF), (0x42, 0x10), (0x61, 2)] as [(UInt16, UInt8)] {
                pit.write(value, port: port)
            }
            _ = pit.read(port: 0x42)
            pit.write(0xC4, port: 0x43)
        })
    static let power = DeviceCase(
        make: { PowerDevice(observer: RecordedRequests(), interrupt: InterruptLine(9, of: RecordedInterrupts())) },
        exercise: { power in
            power.askForPowerOff()
            for (port, value) in [(0x602, 0x21), (0x603, 0x05), (0x604, 0x02), (0x605, 0x34)] as [(UInt16, UInt8)] { power.write(value, port: port) }
        })
    static let resetPort = DeviceCase(
        make: { ResetPort(power: PowerDevice(observer: RecordedRequests(), interrupt: InterruptLine(9, of: RecordedInterrupts()))) },
        exercise: { $0.write(0x0A, port: 0xCF9) })
    static let rtc = DeviceCase(
        make: { CMOSRTC(time: ManualTime()) },
        exercise: { rtc in
            for index in 0..<128 {
                rtc.write(UInt8(index), port: 0x70)
                rtc.write(UInt8(255 - index), port: 0x71)
            }
        })

    static let platform: [any AnyDeviceCase] = [serial, pit, power, resetPort, rtc]
    static let all: [any AnyDeviceCase] = platform + virtio + [passthrough]

    /// Every device with every version of its section that is written.
    static let versions: [Version] = all.flatMap { device in device.section.writes.map { Version(device: device, number: $0) } }

    struct Version: Sendable, CustomTestStringConvertible {
        let device: any AnyDeviceCase
        let number: UInt16
        var testDescription: String { "\(device.testDescription) \(number)" }
    }

    static func golden(_ version: Version) throws -> [UInt8] { try golden("\(version.device.section.name)-\(version.number)") }

    static func golden(_ name: String) throws -> [UInt8] { try OwnedDescriptor.open(path(name), followingLinks: true).readAll(limit: 1 << 20) }

    private static func path(_ name: String) -> String {
        var parts = #filePath.split(separator: "/")
        parts.removeLast()
        return "/" + parts.joined(separator: "/") + "/Golden/\(name).checkpoint"
    }
}

@Suite struct `Every device` {
    @Test(arguments: DeviceCases.versions)
    func `saved, restored and saved again gives the same bytes`(_ version: DeviceCases.Version) throws {
        try version.device.checkRestoring(version: version.number)
    }

    @Test(arguments: DeviceCases.all.map { DeviceCases.Version(device: $0, number: 1) })
    func `quiesced twice is quiesced once`(_ version: DeviceCases.Version) {
        version.device.checkQuiescing()
    }

    @Test(arguments: DeviceCases.versions)
    func `restores its golden files, and no damaged one`(_ version: DeviceCases.Version) throws {
        try version.device.checkGolden(try DeviceCases.golden(version))
    }

    @Test(arguments: DeviceCases.versions)
    func `refuses content too short or too long`(_ version: DeviceCases.Version) throws {
        try version.device.checkTruncatedContent(version: version.number)
    }

    @Test(arguments: DeviceCases.versions)
    func `refuses damaged content or lives with it`(_ version: DeviceCases.Version) throws {
        try version.device.checkDamagedContent(version: version.number)
    }

    @Test func `has a section of its own`() {
        #expect(PlatformState.sections == DeviceCases.platform.map(\.section))
        #expect(Set(DeviceCases.all.map(\.section.name)).count == DeviceCases.all.count)
    }
}
