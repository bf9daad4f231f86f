package import LinuxSystem
internal import Synchronization
package import SystemPackage

/// A virtio disk (virtio 1.2 §5.2).
///
/// Its requests are performed by a few threads of its own, each request by one thread from beginning to end. What a handover carries is
/// the rings alone: when a checkpoint is written nothing is in flight, so nothing is done twice and nothing is lost.
package final class VirtioBlock: VirtioDevice {
    package let kind = VirtioKind.block
    package let features: VirtioFeatures
    package let queueSizes: [UInt16]
    let disk: any Disk
    let serial: [UInt8]
    private let geometry: Mutex<VirtioBlockState>
    private let acceptsFlush = Atomic<Bool>(true)
    private let crew: Mutex<DiskCrew?> = Mutex(nil)
    private let hasReported = Atomic<Bool>(false)

    /// - Parameters:
    ///   - serial: ASCII, cut to 20 bytes.
    ///   - queues: request queues, 1 to 64.
    package init(_ disk: any Disk, serial: String, queues: Int) {
        precondition((1...64).contains(queues), "a disk has 1 to 64 queues")
        self.disk = disk
        self.serial = Array(serial.utf8.prefix(BlockLimits.serial))
        queueSizes = [UInt16](repeating: BlockLimits.queueSize, count: queues)
        var features: VirtioFeatures = [.blockSizeMaximum, .blockSegmentMaximum, .blockSize, .blockFlush, .blockTopology]
        features.formUnion(disk.isReadOnly ? .blockReadOnly : [.blockDiscard, .blockWriteZeroes])
        if queues > 1 { features.insert(.blockQueues) }
        self.features = features
        geometry = Mutex(VirtioBlockState(size: disk.size, blockSize: UInt32(disk.blockSize)))
    }

    /// A disk in a regular file or block device from custody; see ``DiskFile``.
    package convenience init(file: SharedDescriptor, isReadOnly: Bool, serial: String, queues: Int) throws(Errno) {
        self.init(try DiskFile(file, isReadOnly: isReadOnly), serial: serial, queues: queues)
    }

    /// Bytes, as the driver knows it: a file that has changed its size since power-on makes no other disk.
    var size: Int64 { geometry.withLock { $0.size } }
    /// Whether a change must be on stable storage when it ends (virtio 1.2 §5.2.6.2): the driver knows no flush.
    var writesThrough: Bool { !acceptsFlush.load(ordering: .relaxed) }

    package func configuration() -> [UInt8] { state().configuration(queues: queueSizes.count, isReadOnly: disk.isReadOnly) }

    package func start(_ connection: VirtioConnection) throws(Errno) {
        let new = try DiskCrew(connection) { [self] request in perform(request) }
        try new.start()
        crew.withLock { $0 = new }
    }

    package func activate(_ features: VirtioFeatures) { acceptsFlush.store(features.contains(.blockFlush), ordering: .relaxed) }
    package func reset() {}

    package func hold() { current?.hold() }
    package func drain(until deadline: Int64) -> Bool { current?.drain(until: deadline) ?? true }
    package func resume() { current?.resume() }
    package func finish() {
        current?.finish()
        crew.withLock { $0 = nil }
    }

    package func state() -> VirtioBlockState { geometry.withLock { $0 } }
    package func restore(_ state: VirtioBlockState) { geometry.withLock { $0 = state } }

    private var current: DiskCrew? { crew.withLock { $0 } }

    /// Says that the storage fails: the first time, since a broken disk fails all the time.
    func reportOnce(_ error: Errno) {
        if hasReported.exchange(true, ordering: .relaxed) { return }
        writeToStandardError("baton-vmm: disk \(String(decoding: serial, as: UTF8.self)): \(error); the guest sees I/O errors")
    }
}
