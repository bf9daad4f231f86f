internal import Control

/// A failure in three parts. Causes and remedies at length are in docs/errors.md.
struct Explanation {
    /// The thing, and what is the matter with it.
    var what: String
    /// Reasons, one a line.
    var why: [String] = []
    /// What can be done, one a line.
    var remedies: [String] = []

    init(_ failure: CommandFailure) {
        switch failure {
        case .control(let error): self = Self.explain(error)
        case .service(let error): self = Self.explain(error)
        case .noSupervisor(let tried):
            what = "no supervisor answers"
            why = tried.map { "\($0.path): \($0.error)" }
            remedies = ["start batond, or name its socket with --socket or BATON_SOCKET"]
        case .connectionLost:
            what = "the supervisor closed the connection before it answered"
            remedies = ["machines are not affected; look at them with: baton list"]
        case .machineFile(let fault): what = "\(fault)"
        case .unreadable(let path, let reason): what = "\(path): cannot be read: \(reason)"
        case .unsuitable(let path, let reason): what = "\(path): \(reason)"
        case .interrupted(let machine, let operation):
            what = "\(machine): the \(operation) goes on without this command"
            remedies = ["follow it: baton events --follow \(machine)", "abort it, until commit: baton abort \(machine)"]
        case .fleet(let failure):
            what = failure.what
            why = failure.why
            remedies = failure.remedies
        case .usage(let message):
            what = message
            remedies = ["baton --help"]
        }
    }

    private init(_ what: String, why: [String] = [], _ remedies: String...) {
        self.what = what
        self.why = why
        self.remedies = remedies
    }

    private static func explain(_ error: ControlError) -> Explanation {
        switch error {
        case .machineNotFound(let machine):
            return Explanation("\(machine): there is no such machine", "see which there are: baton list")
        case .machineExists(let machine):
            return Explanation(
                "\(machine): a machine of that name exists already",
                "stop it first (baton stop \(machine)), or give the new one another name")
        case .refused(let machine, let reasons): return refused(machine, reasons)
        case .aborted(let machine, let step, let reason):
            return Explanation(
                "\(machine): aborted in \(step): \(reason)", why: ["the guest runs on in the worker it had"],
                "see how far it came: baton history \(machine) --phases")
        case .reverted(let machine, let reason):
            return Explanation(
                "\(machine): reverted: \(reason)", why: ["the guest runs on the previous image again"],
                "see both handovers: baton history \(machine)")
        case .busy(let machine, let operation):
            return Explanation(
                "\(machine): busy with \(operation)", "wait for it (baton events --follow \(machine)), or end it (baton abort \(machine))")
        case .invalidSpec(let key, let reason):
            return Explanation("\(key): \(reason)", "correct it in the machine file; docs/machine-file.md lists what is allowed")
        case .imageNotAllowed(let path, let reason):
            return Explanation(
                "\(path): this image may not be run: \(reason)", "install it into one of the supervisor's image directories")
        case .unavailable(let feature, let reason):
            return Explanation("\(feature): not available here: \(reason)", "see what this host can do: baton doctor")
        case .notPermitted:
            return Explanation(
                "the supervisor does not take orders from this user", "call as the user it runs as, or as root")
        case .malformed(let reason):
            return Explanation("the two sides do not understand each other: \(reason)", "use baton and batond of the same release")
        case .failed(let reason): return Explanation("\(reason)", "the supervisor's log says more")
        }
    }

    /// Reasons that begin with an arrow are advice for this very case.
    private static func refused(_ machine: String, _ reasons: [String]) -> Explanation {
        var explanation = Explanation("\(machine): refused, nothing was touched")
        explanation.why = reasons.filter { !$0.hasPrefix("→ ") }
        explanation.remedies = reasons.filter { $0.hasPrefix("→ ") }.map { String($0.dropFirst(2)) }
        if explanation.remedies.isEmpty { explanation.remedies = ["docs/errors.md, \"Refused\", goes through the reasons"] }
        return explanation
    }

    private static func explain(_ error: ServiceError) -> Explanation {
        let what =
            switch error {
            case .interfaceNotFound(let interface): "the supervisor has no interface \(interface)"
            case .methodNotFound(let method), .methodNotImplemented(let method): "the supervisor has no method \(method)"
            case .invalidParameter(let parameter): "the supervisor does not take the parameter \(parameter)"
            case .expectedMore: "the supervisor expects the call to ask for more replies"
            }
        return Explanation(what, "use baton and batond of the same release")
    }
}
