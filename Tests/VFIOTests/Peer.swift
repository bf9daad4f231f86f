import IOMMUTestSupport
import LinuxSystem
import SystemPackage
import VFIO

/// Where these tests find what they need: the lab, or a machine whose root gives them the same.
enum Lab {
    static let isHere = ProcessEnvironment["BATON_IN_LAB"] != nil
    /// How often what can go wrong now and then is tried.
    static let rounds = (ProcessEnvironment["BATON_LONG"] ?? "").isEmpty ? 20 : 100
    static let reason = "needs the lab's devices and its kernel's mock IOMMU; lab/suites/vfio runs it"
}

/// A process in a worker's place: with descriptors of its supervisor's, a user, and a limit of its own.
final class Peer: @unchecked Sendable {
    private var peer = test_peer()

    /// Two users as the two workers of a handover have them.
    static let users: (UInt32, UInt32) = (600_000, 600_001)

    /// `user`: `nil` stays root, with CAP_IPC_LOCK.
    init(user: UInt32? = users.0, memoryLock: Int = 1 << 40) throws(Errno) {
        try check(unsafe peer_start(&peer, user ?? .max, UInt64(memoryLock)))
    }

    deinit { end() }

    func end() { unsafe peer_end(&peer) }
    var id: Int32 { peer.pid }

    func setMemoryLock(_ bytes: Int) throws(Errno) { try check(set_memory_lock(peer.pid, UInt64(bytes))) }

    /// Mappings of memory for devices: `count` of `length` bytes each, one after the other in the file and as devices see them.
    struct Layout {
        var start: UInt64 = 0
        var length: UInt64
        var iova: UInt64 = 64 << 20
        var count: UInt64 = 1
        var bytes: Int { Int(length * count) }
    }

    @discardableResult
    private func ask(_ what: CInt, _ target: SharedDescriptor, _ file: SharedDescriptor?, _ object: UInt32, _ layout: Layout, first: Bool = true)
        throws(Errno) -> Duration
    {
        var order = peer_order(
            what: what, target: target.number, file: file?.number ?? -1, object: object, start: layout.start, length: layout.length,
            iova: layout.iova, count: layout.count, first: first ? 1 : 0)
        let answer = unsafe peer_ask(&peer, &order)
        try check(answer.result)
        return .nanoseconds(answer.nanoseconds)
    }

    @discardableResult
    func map(_ memory: SharedDescriptor, _ layout: Layout, in iommufd: IOMMUFD, _ ioas: UInt32) throws(Errno) -> Duration {
        try ask(PEER_MAP_FILE, iommufd.file, memory, ioas, layout)
    }
    func mapByAddress(_ memory: SharedDescriptor, _ layout: Layout, in iommufd: IOMMUFD, _ ioas: UInt32) throws(Errno) {
        try ask(PEER_MAP_BY_ADDRESS, iommufd.file, memory, ioas, layout)
    }
    @discardableResult
    func changeProcess(_ iommufd: IOMMUFD) throws(Errno) -> Duration { try ask(PEER_CHANGE_PROCESS, iommufd.file, nil, 0, Layout(length: 0)) }

    /// Whether the mock IOMMU leads to the very pages that this process sees in `memory`.
    func sees(_ memory: SharedDescriptor, _ layout: Layout, by table: UInt32, of iommufd: IOMMUFD) throws(Errno) -> Bool {
        do throws(Errno) {
            try ask(PEER_CHECK, iommufd.file, memory, table, layout)
            return true
        } catch .invalidArgument {
            return false
        }
    }

    @discardableResult
    func map(_ memory: SharedDescriptor, _ layout: Layout, in container: VFIOContainer) throws(Errno) -> Duration {
        try ask(PEER_MAP_MEMORY, container.file, memory, 0, layout)
    }
    /// Brings this process's addresses for what is mapped. `voiding`: after declaring all addresses void.
    @discardableResult
    func bring(_ memory: SharedDescriptor, _ layout: Layout, to container: VFIOContainer, voiding: Bool = true) throws(Errno) -> Duration {
        try ask(PEER_BRING, container.file, memory, 0, layout, first: voiding)
    }

    /// Bytes of pinned and of locked memory that the kernel counts for this process (proc(5): VmPin, VmLck).
    var pinned: Int { kibibytes("VmPin:") << 10 }
    var locked: Int { kibibytes("VmLck:") << 10 }

    private func kibibytes(_ field: String) -> Int {
        let status = (try? FileSystem.line(in: "/proc/\(peer.pid)/status")) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix(field) } ?? ""
        return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) } ?? -1
    }
}

/// Guest RAM, as the supervisor makes it.
func guestMemory(_ bytes: Int) throws(Errno) -> SharedDescriptor {
    let memory = try MemoryDescriptor(name: "guest-ram", size: bytes, flags: MemoryDescriptor.executable)
    try memory.sealSize()
    return SharedDescriptor(memory.takeDescriptor())
}
