internal import Control
internal import SystemPackage

/// Why a command did not do what it was asked to.
enum CommandFailure: Error {
    /// The supervisor says no.
    case control(ControlError)
    /// The supervisor does not know such a call.
    case service(ServiceError)
    /// Nobody answers at any of these sockets.
    case noSupervisor([(path: String, error: Errno)])
    /// The connection ended before the answer.
    case connectionLost
    /// A machine file is wrong somewhere.
    case machineFile(MachineFileFault)
    /// A file on this side cannot be read.
    case unreadable(path: String, reason: String)
    /// A file is not what the command works on.
    case unsuitable(path: String, reason: String)
    /// Ctrl-C while a handover went on.
    case interrupted(machine: String, operation: String)
    /// Of many machines not every one was upgraded.
    case fleet(FleetFailure)
    /// Not possible the way it was called.
    case usage(String)
}

/// Exit codes. Part of the interface: scripts depend on them.
package enum ExitStatus: Int32, Sendable {
    case done = 0
    case failed = 1
    case usage = 2
    /// Nothing was touched.
    case refused = 3
    /// The old worker runs.
    case aborted = 4
    case reverted = 5
    case notFound = 6
    case noSupervisor = 7
    case interrupted = 130
}

extension CommandFailure {
    var status: ExitStatus {
        switch self {
        case .control(let error): Self.status(of: error)
        case .noSupervisor: .noSupervisor
        case .machineFile: .refused
        case .interrupted: .interrupted
        case .fleet(let failure): failure.status
        case .usage: .usage
        case .service, .connectionLost, .unreadable, .unsuitable: .failed
        }
    }

    private static func status(of error: ControlError) -> ExitStatus {
        switch error {
        case .machineNotFound: .notFound
        case .machineExists, .refused, .busy, .invalidSpec, .imageNotAllowed, .unavailable, .notPermitted: .refused
        case .aborted: .aborted
        case .reverted: .reverted
        case .malformed, .failed: .failed
        }
    }

    /// The failure as it is printed: what, why, and what can be done.
    func text(_ style: Style) -> String {
        if case .machineFile(let fault) = self { return "\(fault)".printable + "\n" }
        let explanation = Explanation(self)
        let lines =
            ["\(style.red("baton:")) \(explanation.what.printable)"] + explanation.why.map { "  \($0.printable)" }
            + explanation.remedies.map { "  \(style.cyan("→")) \($0.printable)" }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The failure for programs: the error as varlink carries it, or a name of this program's own.
    var json: String {
        struct Object: Encodable {
            let error: String
            let parameters: [String: JSONValue]
        }
        let object =
            switch self {
            case .control(let error): Object(error: error.name, parameters: error.parameters)
            case .service(let error): Object(error: error.name, parameters: error.parameters)
            case .machineFile(let fault): Object(error: "MachineFile", parameters: ["reason": .string("\(fault)")])
            case .noSupervisor, .connectionLost, .unreadable, .unsuitable, .interrupted, .fleet, .usage:
                Object(error: name, parameters: ["reason": .string(Explanation(self).what)])
            }
        return jsonText(object, indented: false)
    }

    private var name: String {
        switch self {
        case .control(let error): error.name
        case .service(let error): error.name
        case .noSupervisor: "NoSupervisor"
        case .connectionLost: "ConnectionLost"
        case .machineFile: "MachineFile"
        case .unreadable: "Unreadable"
        case .unsuitable: "Unsuitable"
        case .interrupted: "Interrupted"
        case .fleet: "NotAllUpgraded"
        case .usage: "Usage"
        }
    }
}
