/// What of the clock chip is carried from worker to worker. The time is the host's.
package struct CMOSRTCState: Sendable, Equatable {
    /// The first register that is plain memory.
    static let firstByte = 0x0E
    static let centuryRegister: UInt8 = 0x32

    /// The register chosen at port 0x70, 0 to 127.
    package var index: UInt8 = 0
    /// Registers 0x0E to 0x7F.
    package var memory = [UInt8](repeating: 0, count: 128 - firstByte)

    package init() {}
}
