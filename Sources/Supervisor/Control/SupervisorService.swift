package import Control
package import LinuxSystem

/// What the control socket offers, as the rest of the supervisor implements it.
///
/// Every method is called on a thread of its own, may block, and must be safe to call from many threads at once. A caller that goes
/// away ends nothing: the method runs to its end.
package protocol SupervisorService: Sendable {
    /// Who answers, for `GetInfo`.
    var info: ServiceInfo { get }

    /// Starts a machine. The specification has passed ``MachineSpec/validate()``.
    func run(_ spec: MachineSpec) throws(ControlError) -> Machine
    /// All machines, by name.
    func list() throws(ControlError) -> [Machine]
    func show(machine: String) throws(ControlError) -> MachineDetails

    /// Moves a machine to another image and returns when soak is over: committed, or `.refused`, `.aborted`, `.reverted`.
    ///
    /// `progress` takes a lock and adds to a list; it neither waits nor encodes, and may be called from any thread.
    func upgrade(machine: String, image: String, progress: @escaping @Sendable (Step) -> Void) throws(ControlError) -> HandoverRecord
    /// Like ``upgrade(machine:image:progress:)``, to the machine's previous image.
    func rollback(machine: String, progress: @escaping @Sendable (Step) -> Void) throws(ControlError) -> HandoverRecord
    /// Ends the handover under way. `.refused` when there is none, or after commit.
    func abort(machine: String) throws(ControlError)
    /// At most `limit` past handovers, newest first.
    func history(machine: String, limit: Int) throws(ControlError) -> [HandoverRecord]

    /// Kept events with a sequence above `after` (`nil`: all kept), of one machine or of all. When there are none, waits up to
    /// `waiting` for the first. ``EventLog`` does this.
    func events(after: Int?, machine: String?, waiting: Duration) throws(ControlError) -> EventBatch

    /// Prepares to attach a client to a machine's console. What is returned is called once, after the client has been told.
    func openConsole(machine: String) throws(ControlError) -> ConsoleSession

    func pause(machine: String) throws(ControlError)
    func resume(machine: String) throws(ControlError)
    /// Ends a machine and returns when it has ended. `force`: by SIGKILL, without asking its worker.
    func stop(machine: String, force: Bool) throws(ControlError)

    func describeImage(path: String) throws(ControlError) -> ImageDescription
    func doctor() throws(ControlError) -> [Check]
}

/// Takes over a client's connection, now a raw stream both ways, and the bytes it has sent already.
///
/// The descriptor is non-blocking. A session that returns leaves no thread behind; one that blocks occupies its client's place.
package typealias ConsoleSession = @Sendable (_ connection: consuming OwnedDescriptor, _ pending: [UInt8]) -> Void

/// Some events, and where to go on.
package struct EventBatch: Sendable, Equatable {
    package var events: [Event]
    /// The newest sequence looked at, whether or not it is in `events`: the next call's `after`.
    package var last: Int

    package init(events: [Event], last: Int) {
        self.events = events
        self.last = last
    }
}
