import Keeper
import KeeperTestSupport
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing

/// A supervisor process that died while it was putting things into custody for a new machine: the next one finds them, and no power-on.
@Suite struct HalfMadeTests {
    @Test func whatIsInCustodyForAMachineThatNeverRanIsGivenBack() throws {
        let keeper = try TestKeeper()
        let directory = "/tmp/baton-half-\(FileSystem.randomBytes(6).map { String($0, radix: 16) }.joined())"
        let held = SharedDescriptor(try MemoryDescriptor(name: "vfio", size: 4096).takeDescriptor())
        for name in ["ram", "iommufd-1", "vfio-0"] { try keeper.client.put(CustodyKey(machine: "half", name: name), held) }
        try keeper.client.put(CustodyKey(machine: "other", name: "pidfd", generation: 1), held)
        let host = try Host(
            Configuration(runDirectory: directory, socketPath: directory + "/socket", imageDirectories: []), custody: keeper.client,
            changesUsers: false, raisesLimits: false)
        try SupervisorCore(host: host).start()
        // One with a worker is never given up for want of a journal.
        #expect(try keeper.client.list().map(\.machine) == ["other"])
    }
}
