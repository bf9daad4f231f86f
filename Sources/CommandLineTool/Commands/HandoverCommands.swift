internal import ArgumentParser
internal import Control

struct UpgradeCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade", abstract: "Moves a running machine to another worker image.",
        discussion: """
            The guest keeps running but for a blackout of about a millisecond. Whatever fails before commit leaves it with the worker \
            it had; after commit its health is watched, and bad health reverts it. Ctrl-C leaves the upgrade going on.

            Examples:
              baton upgrade web1 --image /usr/lib/baton/images/baton-vmm-0.2.0
              baton upgrade web1 --image ./baton-vmm --json
            """)

    @OptionGroup var machine: MachineArgument
    @Option(help: ArgumentHelp("The image to move to.", valueName: "path"), completion: .file()) var image: String
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let path = session.absolute(image)
        let target = try? session.call(.describeImage, Parameters.DescribeImage(path: path), as: Results.DescribeImage.self).image.version
        try HandoverFollower(session: session, machine: machine.name, operation: "upgrade", target: target)
            .follow(.upgrade, Parameters.Upgrade(machine: machine.name, image: path))
    }
}

struct RollbackCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Moves a machine back to its previous image.",
        discussion: """
            This is an upgrade to the image before: memory, devices and uptime stay. baton show says which image that is.

            Examples:
              baton rollback web1
            """)

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        try HandoverFollower(session: session, machine: machine.name, operation: "rollback", target: nil)
            .follow(.rollback, machine.parameters)
    }
}

struct AbortCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "abort", abstract: "Ends a handover that has not committed.",
        discussion: """
            After commit there is nothing to abort; baton rollback is the way back then.

            Examples:
              baton abort web1
            """)

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let nothing = try session.call(.abort, machine.parameters, as: Results.None.self)
        session.show(nothing, text: "\(session.style.bold(machine.name)): the handover is aborted\n")
    }
}

struct HistoryCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Lists a machine's past handovers, newest first.",
        discussion: """
            Examples:
              baton history web1
              baton history web1 --phases --limit 1
              baton history web1 --json | jq '.[0].blackoutNanoseconds'
            """)

    @OptionGroup var machine: MachineArgument
    @Option(help: "At most so many.") var limit: Int?
    @Flag(help: "Show what each blackout was spent on.") var phases = false
    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if let limit, limit < 1 { throw ValidationError("--limit must be at least 1.") }
    }

    func execute(in session: Session) throws(CommandFailure) {
        let parameters = Parameters.History(machine: machine.name, limit: limit)
        let handovers = try session.call(.history, parameters, as: Results.History.self).handovers
        session.show(handovers, text: phases ? session.history.phases(handovers) : session.history.history(handovers))
    }
}

struct EventsCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Shows what happened, and with --follow what happens.",
        discussion: """
            Examples:
              baton events
              baton events --follow web1
              baton events --follow --json | jq -c 'select(.kind == "handover")'
            """)

    @Argument(help: "Only this machine's.", completion: .shellCommand("baton list --names 2>/dev/null")) var name: String?
    @Flag(name: [.long, .customShort("f")], help: "Go on as things happen.") var follow = false
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        var client = try session.connect()
        client.send(.events, Parameters.Events(machine: name, follow: follow ? true : nil), more: true)
        while true {
            guard case .reply(let result, let continues) = try client.next(Results.Events.self) else { return }
            if let event = result.event {
                session.context.output.write(
                    global.json ? jsonText(event, indented: false) + "\n" : session.history.event(event))
            }
            if !continues { return }
        }
    }
}
