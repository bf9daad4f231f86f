import LinuxSystem
import SystemPackage
import Testing

@testable import KVM

/// A VM with 8 MiB of RAM that has pages, and one vCPU that has never run.
private struct Fixture {
    static let size = 8 << 20
    let vm: VirtualMachine
    let vcpu: VCPU
    /// Where the kernel accounts for this VM: named by the thread that made it and its descriptor.
    let account: String
    let mapping: SharedMapping

    init() throws {
        let system = try KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true))
        vm = try system.createVirtualMachine()
        account = "/sys/kernel/debug/kvm/\(SystemThread.currentID)-\(vm.descriptor.number)"
        mapping = try SharedMapping(of: try MemoryDescriptor(name: "ram", size: Self.size).descriptor, length: Self.size)
        mapping.copyIn([UInt8](repeating: 1, count: Self.size).span, at: 0)
        try vm.setMemorySlot(MemorySlot(number: 0, guestAddress: 0, size: UInt64(Self.size), address: mapping.address))
        vcpu = try vm.createVCPU(0)
    }

    /// How many bytes are in this VM's second-stage page tables, by the kernel's account.
    func entered() throws -> Int {
        var bytes = 0
        for (file, size) in [("pages_4k", 4096), ("pages_2m", 2 << 20), ("pages_1g", 1 << 30)] {
            bytes += try #require(Int(try FileSystem.line(in: "\(account)/\(file)"))) * size
        }
        return bytes
    }
}

extension Host {
    static let canPreFault =
        (try? KVMSystem(try OwnedDescriptor.open("/dev/kvm", .readWrite, followingLinks: true)).value(of: .preFaultMemory)).map { $0 > 0 } ?? false
}

@Suite(.enabled(if: Host.hasKVM, "there is no /dev/kvm here"))
struct PreFaultTests {
    @Test(.enabled(if: Host.canPreFault, "KVM shadows guests' page tables here, or is older than Linux 6.11"))
    func whatIsPreFaultedIsInTheVMsPageTables() throws {
        let fixture = try Fixture()
        #expect(try fixture.entered() == 0)
        try fixture.vcpu.preFault(0x10_0000..<0x30_0000)
        #expect(try fixture.entered() == 0x20_0000)
        #expect(throws: Errno.noSuchFileOrDirectory) { try fixture.vcpu.preFault(UInt64(Fixture.size)..<UInt64(Fixture.size) + 4096) }
    }

    @Test(.disabled(if: Host.canPreFault, "KVM can do it here"))
    func whereItCannotBeDoneItIsSaid() throws {
        let fixture = try Fixture()
        let error = #expect(throws: Errno.self) { try fixture.vcpu.preFault(0..<4096) }
        #expect([Errno.notSupported, .notSupportedOnSocket, .inappropriateIOCTLForDevice, .invalidArgument].contains(error))
    }
}
