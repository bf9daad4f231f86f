/// The methods of `io.baton.Supervisor`.
package enum SupervisorMethod: String, Sendable, CaseIterable {
    case run = "Run"
    case list = "List"
    case show = "Show"
    case upgrade = "Upgrade"
    case rollback = "Rollback"
    case abort = "Abort"
    case history = "History"
    case events = "Events"
    case console = "Console"
    case pause = "Pause"
    case resume = "Resume"
    case stop = "Stop"
    case describeImage = "DescribeImage"
    case doctor = "Doctor"

    /// Interface and method, as a call names it.
    package var fullName: String { "\(Interface.supervisor.name).\(rawValue)" }
}

/// Parameters of calls, one type per shape. Every optional member may be left out.
package enum Parameters {
    package struct None: Codable, Sendable { package init() {} }

    package struct Run: Codable, Sendable {
        package var spec: MachineSpec
        package init(spec: MachineSpec) { self.spec = spec }
    }

    package struct OneMachine: Codable, Sendable {
        package var machine: String
        package init(machine: String) { self.machine = machine }
    }

    package struct Upgrade: Codable, Sendable {
        package var machine: String
        package var image: String
        package init(machine: String, image: String) {
            self.machine = machine
            self.image = image
        }
    }

    package struct History: Codable, Sendable {
        package var machine: String
        package var limit: Int?
        package init(machine: String, limit: Int? = nil) {
            self.machine = machine
            self.limit = limit
        }
    }

    package struct Events: Codable, Sendable {
        package var machine: String?
        package var after: Int?
        package var follow: Bool?
        package init(machine: String? = nil, after: Int? = nil, follow: Bool? = nil) {
            self.machine = machine
            self.after = after
            self.follow = follow
        }
    }

    package struct Stop: Codable, Sendable {
        package var machine: String
        package var force: Bool?
        package init(machine: String, force: Bool? = nil) {
            self.machine = machine
            self.force = force
        }
    }

    package struct DescribeImage: Codable, Sendable {
        package var path: String
        package init(path: String) { self.path = path }
    }

    package struct InterfaceName: Codable, Sendable {
        package var interface: String
        package init(interface: String) { self.interface = interface }
    }
}

/// Results of calls, one type per shape.
package enum Results {
    package struct None: Codable, Sendable { package init() {} }

    package struct OneMachine: Codable, Sendable {
        package var machine: Machine
        package init(machine: Machine) { self.machine = machine }
    }

    package struct List: Codable, Sendable {
        package var machines: [Machine]
        package init(machines: [Machine]) { self.machines = machines }
    }

    package struct Show: Codable, Sendable {
        package var details: MachineDetails
        package init(details: MachineDetails) { self.details = details }
    }

    /// A step while it goes on, the record at the end.
    package struct Progress: Codable, Sendable {
        package var step: Step?
        package var handover: HandoverRecord?
        package init(step: Step) { self.step = step }
        package init(handover: HandoverRecord) { self.handover = handover }
    }

    package struct History: Codable, Sendable {
        package var handovers: [HandoverRecord]
        package init(handovers: [HandoverRecord]) { self.handovers = handovers }
    }

    package struct Events: Codable, Sendable {
        package var event: Event?
        package init(event: Event? = nil) { self.event = event }
    }

    package struct DescribeImage: Codable, Sendable {
        package var image: ImageDescription
        package init(image: ImageDescription) { self.image = image }
    }

    package struct Doctor: Codable, Sendable {
        package var checks: [Check]
        package init(checks: [Check]) { self.checks = checks }
    }

    package struct Description: Codable, Sendable {
        package var description: String
        package init(description: String) { self.description = description }
    }
}
