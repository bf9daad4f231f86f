/// How a device says that it wants attention. At most one way is in use.
package enum InterruptMode: UInt8, Sendable, CaseIterable {
    case none = 0
    /// A level-triggered pin (INTx).
    case line = 1
    /// MSI.
    case message = 2
    /// MSI-X.
    case extended = 3
}

/// One of a device's BARs, as much of it as there is.
package struct PassthroughRegion: Sendable, Equatable {
    /// 0…5.
    package let index: Int
    /// Bytes, a power of two.
    package let size: UInt64
    /// Stretches of it that a guest's processors can be given directly: whole pages, ascending.
    package let mappable: [Range<UInt64>]

    package init(index: Int, size: UInt64, mappable: [Range<UInt64>]) {
        self.index = index
        self.size = size
        self.mappable = mappable
    }
}

/// The live device behind a passed-through function: one of VFIO's, or a double in tests.
///
/// What it has is in the kernel and outlives the process. Nothing here resets, binds or detaches it.
package protocol PassthroughDevice: AnyObject, Sendable {
    /// Its BARs that are there, ascending.
    var regions: [PassthroughRegion] { get }
    /// How many vectors of a mode there is an event for; for a line 1 or 0.
    func vectors(_ mode: InterruptMode) -> Int
    /// Reads 1, 2 or 4 bytes of its configuration space, aligned to their size. Ones where that fails.
    func readConfiguration(at offset: Int, size: Int) -> UInt32
    /// Writes to it. What resets the device takes as long as that takes.
    func writeConfiguration(_ value: UInt32, at offset: Int, size: Int)
    /// Loads 1 to 8 bytes of a BAR. Ones where that fails.
    func read(bar: Int, at offset: Int, size: Int) -> UInt64
    /// Stores to a BAR.
    func write(_ value: UInt64, bar: Int, at offset: Int, size: Int)
    /// Lets vectors 0 to `count` - 1 of a mode signal their events. `false` with a word in the log when the host cannot. Every other mode is
    /// disarmed first.
    func arm(_ mode: InterruptMode, count: Int) -> Bool
    /// Ends that for all vectors. Done twice it is done once.
    func disarm(_ mode: InterruptMode)
    /// Lets a line that was masked as it fired fire again; at once if the device still asserts it.
    func unmaskLine()
}

/// Where a message-signalled interrupt is written.
package struct PCIMessage: Sendable, Equatable {
    package let address: UInt64
    package let data: UInt32

    package init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }
}

/// Where one vector leads.
package struct VectorMessage: Sendable, Equatable {
    package let vector: Int
    package let message: PCIMessage

    package init(vector: Int, message: PCIMessage) {
        self.vector = vector
        self.message = message
    }
}

/// What a passed-through function has of the VM it is in: memory slots for its BARs, and a way from its events to the interrupt controllers.
package protocol PassthroughHost: AnyObject, Sendable {
    /// Shows the guest `areas` of a BAR that begins at `address`; nil takes them away.
    func place(bar: Int, areas: [Range<UInt64>], at address: UInt64?)
    /// Lets the machine's other devices reach what has been placed of a BAR, if they may; `false`: no longer, before it is taken away. Only for
    /// what the guest does now: what it did in an earlier worker is still so.
    func share(bar: Int, _ on: Bool)
    /// Sets where vectors lead. Takes effect at once, for those that are attached, too.
    func route(_ messages: [VectorMessage])
    /// From now on a vector's event interrupts the guest; what it has counted does so at once, as one interrupt. `false` with a word in the
    /// log when the kernel refuses.
    func attach(_ vector: Int) -> Bool
    /// From now on it only counts. Waits for what is under way.
    func detach(_ vector: Int)
    /// The same of the line, whose end of interrupt unmasks it at the device.
    func attachLine() -> Bool
    /// What was delivered and not passed on, since the guest's pin is masked, is forgotten.
    func detachLine()
    /// Whether the guest has been given a line interrupt whose end is still to come: the line's pin has its Remote IRR bit set.
    var isLineInService: Bool { get }
    /// Whether a vector's event has counted anything. Only of a detached one.
    func isWaiting(_ vector: Int) -> Bool
    /// Forgets what a vector's event has counted. Only of a detached one.
    func forget(_ vector: Int)
}
