internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// A machine being built from a blueprint while the guest runs elsewhere and the session goes on answering.
final class Preparation: Sendable {
    struct Built: Sendable {
        let machine: Machine
        let populated: Int
    }

    /// Readable when it is done.
    let done: EventDescriptor
    private let result = Mutex<Result<Built, VMMError>?>(nil)

    init(_ builder: MachineBuilder, _ blueprint: Blueprint) throws(VMMError) {
        done = try doing("making an eventfd") { () throws(Errno) in try EventDescriptor() }
        let thread = try doing("starting a thread") { () throws(Errno) in
            try SystemThread(name: "prepare") { [self] in
                let outcome = Self.build(builder, blueprint)
                result.withLock { $0 = outcome }
                done.signal()
            }
        }
        thread.detach()
    }

    private static func build(_ builder: MachineBuilder, _ blueprint: Blueprint) -> Result<Built, VMMError> {
        do throws(VMMError) {
            let machine = try builder.build(blueprint)
            return .success(Built(machine: machine, populated: try builder.populate(machine)))
        } catch {
            return .failure(error)
        }
    }

    var isDone: Bool { result.withLock { $0 != nil } }

    /// What came of it. Only when ``isDone``.
    func get() throws(VMMError) -> Built {
        guard let result = result.withLock({ $0 }) else { throw VMMError("the machine is not built yet") }
        return try result.get()
    }
}
