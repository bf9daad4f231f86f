import Control
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing

@Suite struct DiskOpenerTests {
    private let directory = "/tmp/baton-disks-\(FileSystem.randomBytes(6).map { String($0, radix: 16) }.joined())"

    private func file(_ name: String, size: Int = 4096) throws -> String {
        try FileSystem.createDirectory(directory)
        let path = directory + "/" + name
        try OwnedDescriptor.open(path, .replace).writeAll([UInt8](repeating: 0, count: size))
        return path
    }

    private func opener(_ directories: [String]? = nil, user: @escaping DiskUser = { _ in nil }) -> DiskOpener {
        DiskOpener(machine: "web1", directories: directories ?? [directory], user: user)
    }

    private func key(_ disk: DiskSpec, _ opener: DiskOpener) -> String? {
        do throws(ControlError) {
            _ = try opener.open(disk, key: "devices[0].disk")
            return nil
        } catch {
            if case .invalidSpec(let key, _) = error { return key }
            if case .refused = error { return "refused" }
            return "\(error)"
        }
    }

    @Test func aDiskForWritingIsLockedAgainstEverybody() throws {
        let path = try file("a")
        let disk = try opener().open(DiskSpec(path: path), key: "k")
        #expect(key(DiskSpec(path: path), opener()) == "refused")
        #expect(key(DiskSpec(path: path, readOnly: true), opener()) == "refused")
        // The lock is the open file's, not ours: a duplicate holds it when the first descriptor is gone.
        let other = try OwnedDescriptor.open(path, .readWrite)
        let seenByOther = try other.isLockedByOthers()
        let seenByItself = try disk.descriptor.isLockedByOthers()
        #expect(seenByOther && !seenByItself)
    }

    @Test func theLockEndsWithTheLastDescriptorOfTheFile() throws {
        let path = try file("b")
        var disk: SharedDescriptor? = try opener().open(DiskSpec(path: path), key: "k")
        var duplicate: SharedDescriptor? = try disk.map { SharedDescriptor(try $0.descriptor.duplicate()) }
        disk = nil
        #expect(key(DiskSpec(path: path), opener()) == "refused")
        duplicate = nil
        #expect(key(DiskSpec(path: path), opener()) == nil)
        withExtendedLifetime((disk, duplicate)) {}
    }

    @Test func readOnlyDisksAreShared() throws {
        let path = try file("c")
        let disk = DiskSpec(path: path, readOnly: true)
        let first = try opener().open(disk, key: "k")
        let second = try opener().open(disk, key: "k")
        #expect(key(DiskSpec(path: path), opener()) == "refused")
        let identities = (try first.descriptor.identity(), try second.descriptor.identity())
        #expect(identities.0 == identities.1)
    }

    @Test func aMachineThatHasItIsNamed() throws {
        let path = try file("d")
        let expected = ControlError.refused(
            machine: "web1",
            reasons: [
                "disk \(path): machine db1 has it open for writing and has locked it",
                "→ stop that one, or use another disk; only disks that are read-only everywhere are shared",
            ])
        #expect(throws: expected) { try opener(user: { _ in ("db1", true) }).open(DiskSpec(path: path), key: "k") }
        #expect(key(DiskSpec(path: path, readOnly: true), opener(user: { _ in ("db1", false) })) == nil)
    }

    @Test func whatLiesElsewhereOrIsNoDiskIsRefused() throws {
        let path = try file("e")
        let keyOfPath = "devices[0].disk.path"
        #expect(key(DiskSpec(path: path), opener(["/srv/nothing"])) == keyOfPath)
        #expect(key(DiskSpec(path: directory + "/../\(directory.dropFirst(5))/e"), opener()) == keyOfPath)
        #expect(key(DiskSpec(path: directory), opener(["/tmp"])) == keyOfPath)
        #expect(key(DiskSpec(path: "/dev/null"), opener(["/dev"])) == keyOfPath)
        #expect(key(DiskSpec(path: directory + "/absent"), opener()) == keyOfPath)
        #expect(key(DiskSpec(path: try file("odd", size: 513)), opener()) == keyOfPath)
        #expect(key(DiskSpec(path: try file("empty", size: 0)), opener()) == keyOfPath)
    }

    @Test func cpusOfTheHostAreReadAsTheKernelWritesThem() {
        #expect(HostCPUs.parse("0-3,8,10-11") == [0...3, 8...8, 10...11])
        #expect(HostCPUs.parse("0") == [0...0])
        #expect(throws: ControlError.self) { try HostCPUs.require([[1023]]) }
        #expect(throws: Never.self) { try HostCPUs.require([[0]]) }
    }
}
