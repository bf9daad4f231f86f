import Control
import Keeper
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing

/// How much memory a machine's workers may keep in place, and what is refused beforehand.
@Suite struct MemoryLockTests {
    private static let ram = 1 << 30

    private func host(changesUsers: Bool, raisesLimits: Bool) throws -> Host {
        try Host(
            Configuration(runDirectory: "/tmp", socketPath: "/tmp/none", imageDirectories: []),
            custody: CustodyClient(try UnixSocket.sequencedPair().takeNear()), changesUsers: changesUsers, raisesLimits: raisesLimits)
    }

    private func spec(_ devices: [DeviceSpec]) -> MachineSpec {
        MachineSpec(name: "web1", vcpus: 1, memory: MemorySpec(sizeBytes: Self.ram), boot: BootSpec(kernel: "/k"), devices: devices)
    }

    private let passed: [DeviceSpec] = [.vfio(VFIOSpec(address: "0000:06:00.0"))]

    @Test func workersWithUsersOfTheirOwnNeedTheMemoryOnce() throws {
        let host = try host(changesUsers: true, raisesLimits: true)
        #expect(MemoryLock.limit(spec(passed), host: host) == Self.ram + (64 << 20))
        #expect(MemoryLock.limit(spec([]), host: host) == Self.ram + (64 << 20))
    }

    @Test func workersOfOneUserNeedItTwice() throws {
        let host = try host(changesUsers: false, raisesLimits: false)
        #expect(MemoryLock.limit(spec(passed), host: host) == 2 * Self.ram + (64 << 20))
        #expect(MemoryLock.limit(spec([]), host: host) == Self.ram + (64 << 20))
    }

    @Test func aLimitThatIsTooLowIsRefusedWithTheNumber() throws {
        let host = try host(changesUsers: false, raisesLimits: false)
        let error = #expect(throws: ControlError.self) { try MemoryLock.require(spec(passed), host: host, limit: 8 << 20) }
        guard case .refused(_, let reasons)? = error else {
            Issue.record("not refused: \(String(describing: error))")
            return
        }
        #expect(reasons[0].contains("2112 MiB are needed, RLIMIT_MEMLOCK allows 8 MiB"))
        #expect(reasons[1].hasPrefix("→ ") && reasons[1].contains("ulimit -l \(2112 << 10)"))
        try MemoryLock.require(spec(passed), host: host, limit: UInt64(2112 << 20))
        try MemoryLock.require(spec([]), host: host, limit: 0)
    }

    @Test func whoCanRaiseLimitsIsNotHeldToHisOwn() throws {
        try MemoryLock.require(spec(passed), host: try host(changesUsers: true, raisesLimits: true), limit: 0)
    }
}
