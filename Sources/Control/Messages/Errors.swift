/// An error as varlink carries it: a full name and an object.
package protocol VarlinkError: Error {
    var name: String { get }
    var parameters: [String: JSONValue] { get }
}

/// The errors of `io.baton.Supervisor`. Each has its paragraph in docs/errors.md.
package enum ControlError: VarlinkError, Sendable, Equatable {
    /// There is no such machine.
    case machineNotFound(machine: String)
    /// There is one of that name already.
    case machineExists(machine: String)
    /// Found out before anything was touched: it would not work. A reason that begins with `→ ` is advice.
    case refused(machine: String, reasons: [String])
    /// Began and was undone before commit; the outgoing worker runs on.
    case aborted(machine: String, step: String, reason: String)
    /// Committed, and went back to the previous image.
    case reverted(machine: String, reason: String)
    /// Something else is being done to the machine.
    case busy(machine: String, operation: String)
    /// The machine's description asks for something impossible. `key` is a dotted path.
    case invalidSpec(key: String, reason: String)
    /// The image is not one this supervisor may execute.
    case imageNotAllowed(path: String, reason: String)
    /// This host, or this supervisor's privileges, lack what that needs.
    case unavailable(feature: String, reason: String)
    /// The caller may not use this socket.
    case notPermitted
    /// The message is not varlink; the connection is closed after it.
    case malformed(reason: String)
    /// Anything else.
    case failed(reason: String)

    /// The part of the name after the interface.
    package var shortName: String {
        switch self {
        case .machineNotFound: "MachineNotFound"
        case .machineExists: "MachineExists"
        case .refused: "Refused"
        case .aborted: "Aborted"
        case .reverted: "Reverted"
        case .busy: "Busy"
        case .invalidSpec: "InvalidSpec"
        case .imageNotAllowed: "ImageNotAllowed"
        case .unavailable: "Unavailable"
        case .notPermitted: "NotPermitted"
        case .malformed: "Malformed"
        case .failed: "Failed"
        }
    }

    package var name: String { "\(Interface.supervisor.name).\(shortName)" }

    package var parameters: [String: JSONValue] {
        switch self {
        case .machineNotFound(let machine), .machineExists(let machine): ["machine": .string(machine)]
        case .refused(let machine, let reasons): ["machine": .string(machine), "reasons": .array(reasons.map(JSONValue.string))]
        case .aborted(let machine, let step, let reason):
            ["machine": .string(machine), "step": .string(step), "reason": .string(reason)]
        case .reverted(let machine, let reason): ["machine": .string(machine), "reason": .string(reason)]
        case .busy(let machine, let operation): ["machine": .string(machine), "operation": .string(operation)]
        case .invalidSpec(let key, let reason): ["key": .string(key), "reason": .string(reason)]
        case .imageNotAllowed(let path, let reason): ["path": .string(path), "reason": .string(reason)]
        case .unavailable(let feature, let reason): ["feature": .string(feature), "reason": .string(reason)]
        case .notPermitted: [:]
        case .malformed(let reason), .failed(let reason): ["reason": .string(reason)]
        }
    }

    /// The error that arrived under `name`; `nil` when it is none of this interface, or lacks what it should carry.
    package init?(name: String, parameters: JSONValue) {
        let prefix = Interface.supervisor.name + "."
        guard name.hasPrefix(prefix) else { return nil }
        func text(_ key: String) -> String { parameters[key]?.text ?? "" }
        switch name.dropFirst(prefix.count) {
        case "MachineNotFound": self = .machineNotFound(machine: text("machine"))
        case "MachineExists": self = .machineExists(machine: text("machine"))
        case "Refused":
            guard case .array(let reasons)? = parameters["reasons"] else { return nil }
            self = .refused(machine: text("machine"), reasons: reasons.compactMap(\.text))
        case "Aborted": self = .aborted(machine: text("machine"), step: text("step"), reason: text("reason"))
        case "Reverted": self = .reverted(machine: text("machine"), reason: text("reason"))
        case "Busy": self = .busy(machine: text("machine"), operation: text("operation"))
        case "InvalidSpec": self = .invalidSpec(key: text("key"), reason: text("reason"))
        case "ImageNotAllowed": self = .imageNotAllowed(path: text("path"), reason: text("reason"))
        case "Unavailable": self = .unavailable(feature: text("feature"), reason: text("reason"))
        case "NotPermitted": self = .notPermitted
        case "Malformed": self = .malformed(reason: text("reason"))
        case "Failed": self = .failed(reason: text("reason"))
        default: return nil
        }
    }
}

/// The errors every varlink service has (`org.varlink.service`).
package enum ServiceError: VarlinkError, Sendable, Equatable {
    case interfaceNotFound(interface: String)
    case methodNotFound(method: String)
    case methodNotImplemented(method: String)
    /// `parameter` is a dotted path.
    case invalidParameter(parameter: String)
    /// The method answers more than once and the call does not say `more`.
    case expectedMore

    package var name: String {
        switch self {
        case .interfaceNotFound: "org.varlink.service.InterfaceNotFound"
        case .methodNotFound: "org.varlink.service.MethodNotFound"
        case .methodNotImplemented: "org.varlink.service.MethodNotImplemented"
        case .invalidParameter: "org.varlink.service.InvalidParameter"
        case .expectedMore: "org.varlink.service.ExpectedMore"
        }
    }

    package var parameters: [String: JSONValue] {
        switch self {
        case .interfaceNotFound(let interface): ["interface": .string(interface)]
        case .methodNotFound(let method), .methodNotImplemented(let method): ["method": .string(method)]
        case .invalidParameter(let parameter): ["parameter": .string(parameter)]
        case .expectedMore: [:]
        }
    }

    /// The error that arrived under `name`; `nil` when it is none of these.
    package init?(name: String, parameters: JSONValue) {
        func text(_ key: String) -> String { parameters[key]?.text ?? "" }
        switch name {
        case "org.varlink.service.InterfaceNotFound": self = .interfaceNotFound(interface: text("interface"))
        case "org.varlink.service.MethodNotFound": self = .methodNotFound(method: text("method"))
        case "org.varlink.service.MethodNotImplemented": self = .methodNotImplemented(method: text("method"))
        case "org.varlink.service.InvalidParameter": self = .invalidParameter(parameter: text("parameter"))
        case "org.varlink.service.ExpectedMore": self = .expectedMore
        default: return nil
        }
    }
}
