extension Interface {
    /// The control interface of the supervisor.
    package static let supervisor = Interface(
        name: "io.baton.Supervisor",
        documentation: """
            Runs virtual machines, and replaces the process under a running one.
            Times are nanoseconds unless a name says otherwise; points in time are counted from 1970.
            """,
        types: specTypes + deviceTypes + machineTypes + handoverTypes + descriptionTypes,
        methods: machineMethods + handoverMethods + hostMethods,
        errors: supervisorErrors)

    private static func record(_ name: String, _ documentation: String, _ fields: Field...) -> NamedType {
        NamedType(name: name, documentation: documentation, definition: .record(fields))
    }

    private static func choice<Choice: RawRepresentable & CaseIterable>(
        _ name: String, _ documentation: String, of type: Choice.Type
    ) -> NamedType where Choice.RawValue == String {
        NamedType(name: name, documentation: documentation, definition: .choice(Choice.allCases.map(\.rawValue)))
    }

    private static let specTypes: [NamedType] = [
        record(
            "MachineSpec", "What an operator asks for: one machine. Paths are absolute.",
            Field("name", .string), Field("vcpus", .int),
            Field("vcpuAffinity", .optional(.list(.list(.int))), "the host's CPUs each vCPU may run on, one list for each"),
            Field("memory", .named("MemorySpec")), Field("boot", .named("BootSpec")),
            Field("console", .optional(.named("ConsoleSpec"))),
            Field("image", .optional(.string), "worker image to start with; the supervisor's default when absent"),
            Field("devices", .optional(.list(.named("DeviceSpec"))), "device i is PCI function 00:(i + 1).0"),
            Field("onCrash", .named("CrashPolicy")), Field("upgrade", .named("UpgradePolicy"))),
        record(
            "MemorySpec", "Guest memory.", Field("sizeBytes", .int),
            Field("pages", .string, PageKind.allCases.map(\.rawValue).joined(separator: ", ")),
            Field("prefault", .bool, "allocate every page before the guest starts")),
        record(
            "BootSpec", "What the guest starts from: a bzImage or an ELF image with a PVH entry.", Field("kernel", .string),
            Field("initrd", .optional(.string)), Field("cmdline", .optional(.string))),
        record(
            "ConsoleSpec", "Where else the guest's console can be reached.",
            Field("socket", .optional(.string), "a stream socket the supervisor listens on")),
        choice("CrashPolicy", "What happens when the worker died and left no state.", of: CrashPolicy.self),
        record(
            "UpgradePolicy", "How the machine is upgraded.",
            Field("blackoutBudgetNanoseconds", .int, "a handover that would stop the guest for longer is aborted"),
            Field("ioHoldBudgetNanoseconds", .optional(.int), "a handover whose disks take longer to come to rest is aborted; 2 s when absent"),
            Field("soak", .named("SoakPolicy")),
            Field("onlyUpgradable", .bool, "refuse to run it when something in it could not be handed over")),
        record(
            "SoakPolicy", "How long health is watched after commit.", Field("durationMilliseconds", .int),
            Field("onFailure", .named("SoakFailurePolicy"))),
        choice("SoakFailurePolicy", "What bad health during soak leads to.", of: SoakPolicy.FailurePolicy.self),
    ]

    private static let deviceTypes: [NamedType] = [
        record(
            "DeviceSpec", "One device. Exactly one member is there.", Field("disk", .optional(.named("DiskSpec"))),
            Field("net", .optional(.named("NetSpec"))), Field("console", .optional(.named("PortsSpec"))),
            Field("rng", .optional(.named("RandomSpec"))), Field("vfio", .optional(.named("VFIOSpec")))),
        record(
            "DiskSpec", "A virtio disk on a raw file or a block device.", Field("path", .string), Field("readOnly", .bool),
            Field("serial", .optional(.string), "printable ASCII, at most 20 bytes"),
            Field("queues", .optional(.int), "1 to 8; as many as vCPUs and at most 4 when absent")),
        record(
            "NetSpec", "A virtio network interface on a tap that is there.", Field("tap", .string, "name of the interface"),
            Field("mac", .optional(.string), "derived from the machine's name and the device's place when absent"),
            Field("queues", .optional(.int), "queue pairs, 1 to 8; 1 when absent"), Field("mtu", .optional(.int), "1500 when absent")),
        record("PortsSpec", "A virtio console: byte streams between guest and sockets.", Field("ports", .list(.named("PortSpec")))),
        record(
            "PortSpec", "One stream of a virtio console.", Field("name", .string, "what the guest knows it by"),
            Field("socket", .string, "a stream socket the supervisor listens on")),
        record("RandomSpec", "A virtio source of randomness."),
        record(
            "VFIOSpec", "A device of the host, passed through to the guest.",
            Field("address", .string, "PCI address as in 0000:06:00.0, or the UUID of a mediated device"),
            Field("backend", .named("VFIOBackend"))),
        choice("VFIOBackend", "How its memory is mapped. auto is settled as the machine starts.", of: VFIOSpec.Backend.self),
        record(
            "Device", "A device as a machine has it, with everything settled that its description left open.",
            Field("address", .string, "PCI address, as in 00:01.0"), Field("spec", .named("DeviceSpec"))),
    ]

    private static let machineTypes: [NamedType] = [
        choice("MachineState", "What a machine is doing.", of: MachineState.self),
        record(
            "ImageReference", "A worker image.", Field("version", .string), Field("digest", .string, "SHA-256 in hexadecimal")),
        record(
            "Machine", "A machine, in one row.", Field("name", .string), Field("state", .named("MachineState")), Field("vcpus", .int),
            Field("memoryBytes", .int), Field("image", .named("ImageReference")), Field("generation", .int),
            Field("uptimeNanoseconds", .int, "since power-on; handovers do not interrupt it"),
            Field("lastHandover", .optional(.named("LastHandover"))),
            Field("revertableTo", .optional(.named("ImageReference")), "the image it could go back to")),
        record(
            "LastHandover", "The newest handover of a machine.", Field("atNanoseconds", .int), Field("outcome", .named("Outcome")),
            Field("blackoutNanoseconds", .optional(.int)), Field("reason", .optional(.string), "why it did not go through")),
        record(
            "MachineDetails", "A machine, with everything worth knowing.", Field("machine", .named("Machine")),
            Field("spec", .named("MachineSpec")), Field("model", .string, "the guest-visible machine, fixed at power-on"),
            Field("worker", .optional(.named("Worker"))), Field("devices", .optional(.list(.named("Device")))),
            Field("operation", .optional(.named("Operation"))),
            Field("blockers", .list(.string), "why it cannot be upgraded or reverted")),
        record("Worker", "The process that runs a machine.", Field("pid", .int), Field("uid", .int)),
        record(
            "Operation", "A command under way.", Field("name", .string), Field("phase", .optional(.string)),
            Field("elapsedNanoseconds", .int)),
    ]

    private static let handoverTypes: [NamedType] = [
        choice("Kind", "Why a handover was made.", of: HandoverRecord.Kind.self),
        choice("Outcome", "How a handover ended.", of: HandoverRecord.Outcome.self),
        record("PhaseTime", "A part of the blackout.", Field("name", .string), Field("nanoseconds", .int)),
        record(
            "StepTime", "A step, counted from the beginning of its handover.", Field("phase", .string), Field("beginNanoseconds", .int),
            Field("endNanoseconds", .optional(.int))),
        record(
            "Handover", "One handover, finished.", Field("machine", .string), Field("kind", .named("Kind")),
            Field("outcome", .named("Outcome")), Field("reason", .optional(.string)), Field("fromGeneration", .int),
            Field("toGeneration", .int), Field("fromImage", .named("ImageReference")), Field("toImage", .named("ImageReference")),
            Field("startedAtNanoseconds", .int), Field("totalNanoseconds", .int),
            Field("blackoutNanoseconds", .optional(.int), "what the guest missed; absent when it was never stopped"),
            Field("budgetNanoseconds", .optional(.int)),
            Field("ioHoldNanoseconds", .optional(.int), "for how long requests to disks and networks waited"),
            Field("phases", .list(.named("PhaseTime")), "parts of the blackout"),
            Field("steps", .list(.named("StepTime")))),
        choice("StepState", "What a step does.", of: Step.State.self),
        record(
            "Step", "Progress of a handover.", Field("machine", .string),
            Field("phase", .string, Phase.allCases.map(\.rawValue).joined(separator: " ")), Field("state", .named("StepState")),
            Field("nanoseconds", .int, "its duration; at its beginning, the time since the handover began"),
            Field("detail", .optional(.string))),
    ]

    private static let descriptionTypes: [NamedType] = [
        choice("EventKind", "What happened.", of: Event.Kind.self),
        record(
            "Event", "Something that happened.", Field("sequence", .int, "grows by one with every event of this supervisor process"),
            Field("atNanoseconds", .int), Field("machine", .optional(.string)), Field("generation", .optional(.int)),
            Field("kind", .named("EventKind")), Field("detail", .optional(.string)), Field("step", .optional(.named("Step"))),
            Field("handover", .optional(.named("Handover")))),
        record("VersionRange", "Both ends included.", Field("lowest", .int), Field("highest", .int)),
        record(
            "SectionRange", "Versions of one checkpoint section.", Field("name", .string), Field("writes", .named("VersionRange")),
            Field("reads", .named("VersionRange"))),
        record(
            "ImageDescription", "What a worker image says of itself.", Field("path", .string), Field("version", .string),
            Field("digest", .string), Field("models", .list(.string)), Field("sections", .list(.named("SectionRange"))),
            Field("features", .list(.string)), Field("needs", .list(.string))),
        choice("Verdict", "How a check came out.", of: Check.Verdict.self),
        record("Check", "One thing the doctor looked at.", Field("name", .string), Field("verdict", .named("Verdict")), Field("detail", .string)),
    ]
}

extension Interface {
    private static let machine = Field("machine", .string)
    private static let progress = [Field("step", .optional(.named("Step"))), Field("handover", .optional(.named("Handover")))]

    private static func method(_ method: SupervisorMethod, _ documentation: String, _ parameters: [Field], _ result: [Field]) -> Method {
        Method(name: method.rawValue, documentation: documentation, parameters: parameters, result: result)
    }

    private static let machineMethods: [Method] = [
        method(.run, "Starts a machine.", [Field("spec", .named("MachineSpec"))], [Field("machine", .named("Machine"))]),
        method(.list, "All machines, by name.", [], [Field("machines", .list(.named("Machine")))]),
        method(.show, "Everything about one machine.", [machine], [Field("details", .named("MachineDetails"))]),
        method(
            .console, "Attaches to the guest's console. Call it with `upgrade`: after the reply the connection is a raw stream.", [machine],
            []),
        method(.pause, "Stops the guest's vCPUs.", [machine], []),
        method(.resume, "Lets a paused guest go on.", [machine], []),
        method(.stop, "Ends a machine. Its worker is asked, unless `force` says kill.", [machine, Field("force", .optional(.bool))], []),
    ]

    private static let handoverMethods: [Method] = [
        method(
            .upgrade,
            "Moves a machine to a worker of another image. With `more` every step is a reply of its own; the last one has the record.\n"
                + "It goes on when the caller leaves.",
            [machine, Field("image", .string, "absolute path")], progress),
        method(.rollback, "Moves a machine back to its previous image; otherwise like Upgrade.", [machine], progress),
        method(.abort, "Ends a handover under way. Honoured until commit.", [machine], []),
        method(
            .history, "Past handovers, newest first.", [machine, Field("limit", .optional(.int))],
            [Field("handovers", .list(.named("Handover")))]),
    ]

    private static let hostMethods: [Method] = [
        method(
            .events,
            "Events since `after` as far as they are kept, one a reply; with `follow` also those to come. Needs `more`. The last reply is empty.",
            [Field("machine", .optional(.string)), Field("after", .optional(.int)), Field("follow", .optional(.bool))],
            [Field("event", .optional(.named("Event")))]),
        method(
            .describeImage, "What a worker image says of itself.", [Field("path", .string)], [Field("image", .named("ImageDescription"))]),
        method(.doctor, "Looks at what this host can do.", [], [Field("checks", .list(.named("Check")))]),
    ]

    private static func error(_ name: String, _ documentation: String, _ parameters: Field...) -> ErrorDeclaration {
        ErrorDeclaration(name: name, documentation: documentation, parameters: parameters)
    }

    private static let reason = Field("reason", .string)

    private static let supervisorErrors: [ErrorDeclaration] = [
        error("MachineNotFound", "There is no such machine.", machine),
        error("MachineExists", "There is one of that name already.", machine),
        error(
            "Refused", "Nothing was touched. A reason that begins with an arrow is advice.", machine, Field("reasons", .list(.string))),
        error("Aborted", "Undone before commit; the outgoing worker runs on.", machine, Field("step", .string), reason),
        error("Reverted", "Committed, and given back to the previous image.", machine, reason),
        error("Busy", "Something else is being done to the machine.", machine, Field("operation", .string)),
        error("InvalidSpec", "The description asks for something impossible.", Field("key", .string, "dotted path"), reason),
        error("ImageNotAllowed", "The image is not one this supervisor may execute.", Field("path", .string), reason),
        error("Unavailable", "This host, or this supervisor's privileges, lack what that needs.", Field("feature", .string), reason),
        error("NotPermitted", "The caller may not use this socket."),
        error("Malformed", "The message is not varlink. The connection is closed after it.", reason),
        error("Failed", "Anything else.", reason),
    ]
}
