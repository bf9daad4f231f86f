/// What of the reset ports is carried from worker to worker.
package struct ResetPortState: Sendable, Equatable {
    /// The register at 0xCF9, bits 1 to 3.
    package var control: UInt8 = 0

    package init() {}
}
