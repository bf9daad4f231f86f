import IOMMUTestSupport
import LinuxSystem
import SystemPackage
import Testing
import VFIO

/// An iommufd with one address space and a mock device attached to it, as the supervisor sets one up before any worker exists.
private struct MockMachine {
    let iommufd: IOMMUFD
    let ioas: UInt32
    let table: UInt32
    let memory: SharedDescriptor
    /// Two mappings, of different pages.
    let layouts: [Peer.Layout]

    static let size = 32 << 20

    init(byProcess: Bool = false, memory bytes: Int = size) throws {
        iommufd = try IOMMUFD.open()
        if byProcess { try check(account_by_process(iommufd.file.number)) }
        ioas = try iommufd.allocateAddressSpace()
        var table: UInt32 = 0
        try check(unsafe mock_attach(iommufd.file.number, ioas, &table))
        self.table = table
        memory = try guestMemory(bytes)
        let half = UInt64(bytes / 2)
        layouts = [.init(length: half, iova: 16 << 20), .init(start: half, length: half, iova: 512 << 20)]
    }

    func map(by worker: Peer) throws { for layout in layouts { try worker.map(memory, layout, in: iommufd, ioas) } }

    /// Whether every address of the device leads to the page of guest memory that it should, as `worker` sees them.
    func isRight(for worker: Peer) throws -> Bool {
        for layout in layouts where try !worker.sees(memory, layout, by: table, of: iommufd) { return false }
        return true
    }
}

/// What becomes of mappings and of who is charged for them as one process follows another, by the kernel's own mock IOMMU.
@Suite(.serialized, .enabled(if: Lab.isHere, Comment(rawValue: Lab.reason))) struct MockIOMMUTests {
    private static let size = MockMachine.size

    @Test func aKernelThatCanPassMappingsOnSaysSo() throws { #expect(try IOMMUFD.open().canChangeProcess) }

    /// Accounting: user.
    @Test func mappingsStayAndTheChargeMovesToANewWorkerOfAnotherUser() throws {
        let machine = try MockMachine()
        let old = try Peer(user: Peer.users.0, memoryLock: Self.size + (64 << 20))
        let new = try Peer(user: Peer.users.1, memoryLock: Self.size + (64 << 20))
        try machine.map(by: old)
        #expect(try machine.isRight(for: old) && machine.isRight(for: new))
        #expect(old.pinned == Self.size && new.pinned == 0)
        try new.changeProcess(machine.iommufd)
        #expect(old.pinned == 0 && new.pinned == Self.size && new.locked == 0)
        #expect(try machine.isRight(for: new))
        old.end()
        #expect(try machine.isRight(for: new))
        #expect(new.pinned == Self.size)
        // Once more, and back: it is no matter who had it before.
        try new.changeProcess(machine.iommufd)
        let third = try Peer(user: Peer.users.0, memoryLock: Self.size + (64 << 20))
        try third.changeProcess(machine.iommufd)
        #expect(new.pinned == 0 && third.pinned == Self.size)
        #expect(try machine.isRight(for: third))
    }

    /// The check can say no: other pages, and pages that are mapped elsewhere, are not what the device reaches.
    @Test func otherPagesAreNotTakenForTheRightOnes() throws {
        let machine = try MockMachine()
        let worker = try Peer()
        try machine.map(by: worker)
        var wrong = machine.layouts[0]
        wrong.start += 4096
        wrong.length -= 4096
        #expect(try !worker.sees(machine.memory, wrong, by: machine.table, of: machine.iommufd))
        let other = try guestMemory(Self.size)
        let late = try Peer()  // has the other memory, too
        #expect(try !late.sees(other, machine.layouts[0], by: machine.table, of: machine.iommufd))
        #expect(try machine.isRight(for: late))
    }

    /// Accounting: process. VmLck moves as well, while the old worker lives.
    @Test func whenProcessesAreChargedLockedMemoryMovesToo() throws {
        let machine = try MockMachine(byProcess: true)
        let old = try Peer(user: Peer.users.0)
        let new = try Peer(user: Peer.users.1)
        try machine.map(by: old)
        #expect(old.pinned == Self.size && old.locked == Self.size)
        try new.changeProcess(machine.iommufd)
        #expect(old.pinned == 0 && old.locked == 0 && new.pinned == Self.size && new.locked == Self.size)
        #expect(try machine.isRight(for: new))
    }

    /// Accounting: none. A worker with CAP_IPC_LOCK, which ours never have, is charged nothing that could move.
    @Test func withoutAccountingNothingHasToMove() throws {
        let machine = try MockMachine()
        let old = try Peer(user: nil, memoryLock: 0)
        let new = try Peer(user: nil, memoryLock: 0)
        try machine.map(by: old)
        try new.changeProcess(machine.iommufd)
        #expect(try machine.isRight(for: new))
        old.end()
        #expect(try machine.isRight(for: new))
    }

    @Test func aWorkerWhosePredecessorIsDeadTakesOverToo() throws {
        let machine = try MockMachine()
        let old = try Peer(user: Peer.users.0)
        let new = try Peer(user: Peer.users.1)
        try machine.map(by: old)
        old.end()
        #expect(try machine.isRight(for: new))
        try new.changeProcess(machine.iommufd)
        #expect(new.pinned == Self.size)
        #expect(try machine.isRight(for: new))
    }

    /// A limit in the way changes nothing, and once it is out of the way the same call does it.
    @Test func alimitIsMetWithoutHarmAndTheRemedyWorks() throws {
        let machine = try MockMachine()
        let old = try Peer(user: Peer.users.0)
        let new = try Peer(user: Peer.users.1, memoryLock: Self.size - 4096)
        try machine.map(by: old)
        #expect(throws: Errno.noMemory) { try new.changeProcess(machine.iommufd) }
        #expect(old.pinned == Self.size && new.pinned == 0)
        #expect(try machine.isRight(for: new))
        try new.setMemoryLock(Self.size + (64 << 20))
        try new.changeProcess(machine.iommufd)
        #expect(old.pinned == 0 && new.pinned == Self.size)
    }

    /// Why an ordinary user's supervisor asks for room for the memory twice.
    @Test func oneUserForBothWorkersNeedsRoomTwice() throws {
        let machine = try MockMachine()
        let old = try Peer(user: Peer.users.0)
        let tight = try Peer(user: Peer.users.0, memoryLock: 2 * Self.size - 4096)
        try machine.map(by: old)
        #expect(throws: Errno.noMemory) { try tight.changeProcess(machine.iommufd) }
        let wide = try Peer(user: Peer.users.0, memoryLock: 2 * Self.size)
        try wide.changeProcess(machine.iommufd)
        #expect(old.pinned == 0 && wide.pinned == Self.size)
    }

    @Test func aWorkerThatMayNotLockEnoughCannotMap() throws {
        let machine = try MockMachine()
        let worker = try Peer(memoryLock: Self.size / 4)
        #expect(throws: Errno.noMemory) { try machine.map(by: worker) }
    }

    /// One mapping by address anywhere in the iommufd, and nothing can be passed on: workers must make none.
    @Test func aStrayMappingByAddressIsInTheWay() throws {
        let machine = try MockMachine()
        let old = try Peer(user: Peer.users.0)
        let new = try Peer(user: Peer.users.1)
        try machine.map(by: old)
        let stray = Peer.Layout(length: 4096, iova: 1 << 30)
        try old.mapByAddress(machine.memory, stray, in: machine.iommufd, try machine.iommufd.allocateAddressSpace())
        #expect(throws: Errno.invalidArgument) { try new.changeProcess(machine.iommufd) }
        #expect(new.pinned == 0)
        #expect(try machine.isRight(for: new))
    }

    @Test func whatIsMappedAlreadyIsNotMappedAgain() throws {
        let machine = try MockMachine()
        let worker = try Peer()
        try machine.map(by: worker)
        #expect(throws: Errno.fileExists) { try machine.map(by: worker) }
        #expect(try machine.iommufd.unmap(iova: 0, length: .max, in: machine.ioas) == UInt64(Self.size))
        #expect(worker.pinned == 0)
        try machine.map(by: worker)
    }

    @Test func theUsableRangesAreTheMockDevices() throws {
        let machine = try MockMachine()
        let usable = try machine.iommufd.usable(in: machine.ioas)
        #expect(usable.ranges == [(16 << 20)...(2 << 30) - 1] && usable.alignment == 2048)
    }
}
