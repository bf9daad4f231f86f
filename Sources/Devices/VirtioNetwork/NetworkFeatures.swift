internal import LinuxSystem

/// Feature bits of a network device (virtio 1.2 §5.1.3).
extension VirtioFeatures {
    package static let networkChecksum = VirtioFeatures(rawValue: 1 << 0)
    package static let networkGuestChecksum = VirtioFeatures(rawValue: 1 << 1)
    package static let networkMTU = VirtioFeatures(rawValue: 1 << 3)
    package static let networkAddress = VirtioFeatures(rawValue: 1 << 5)
    package static let networkGuestTCP4 = VirtioFeatures(rawValue: 1 << 7)
    package static let networkGuestTCP6 = VirtioFeatures(rawValue: 1 << 8)
    package static let networkHostTCP4 = VirtioFeatures(rawValue: 1 << 11)
    package static let networkHostTCP6 = VirtioFeatures(rawValue: 1 << 12)
    package static let networkMergeableBuffers = VirtioFeatures(rawValue: 1 << 15)
    package static let networkStatus = VirtioFeatures(rawValue: 1 << 16)
    package static let networkControl = VirtioFeatures(rawValue: 1 << 17)
    package static let networkQueuePairs = VirtioFeatures(rawValue: 1 << 22)

    /// What the tap may leave to the driver.
    var tapOffloads: TapOffloads {
        guard contains(.networkGuestChecksum) else { return [] }
        var offloads: TapOffloads = .checksum
        if contains(.networkGuestTCP4) { offloads.insert(.tcp4) }
        if contains(.networkGuestTCP6) { offloads.insert(.tcp6) }
        return offloads
    }
}

enum NetworkLimits {
    /// Bytes of the header before every packet, with the number of buffers in its last two (§5.1.6).
    static let header = 12
    static let bufferCountOffset = 10
    /// Bytes of the longest frame around its payload: two addresses, two VLAN tags, a type.
    static let framing = 22
    /// Bytes of the longest packet with its header: one that is still to be cut into segments.
    static let packet = header + framing + 65535
    static let receiveQueue: UInt16 = 1024
    static let transmitQueue: UInt16 = 512
    static let controlQueue: UInt16 = 64
    /// Packets moved before the driver is told of them and other work of the thread is looked at.
    static let batch = 32
}
