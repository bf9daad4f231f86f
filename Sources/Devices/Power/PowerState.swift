/// What of the power port is carried from worker to worker.
package struct PowerState: Sendable, Equatable {
    /// What the guest has asked for and not got yet.
    package var request: PowerRequest?
    /// The operator asks the guest to switch itself off.
    package var operatorAsks = false

    package init() {}
}
