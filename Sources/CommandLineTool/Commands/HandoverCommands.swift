internal import ArgumentParser
internal import Control

struct UpgradeCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade", abstract: "Moves running machines to another worker image.",
        discussion: """
            The guest keeps running but for a blackout of about a millisecond. Whatever fails before commit leaves it with the worker \
            it had; after commit its health is watched, and bad health reverts it. Ctrl-C leaves the upgrade going on.

            Of many machines a few at a time are upgraded, each to the end of its soak. After the first that fails no further one is begun, \
            unless --keep-going; Ctrl-C does the same, and a second one leaves at once. The exit code is that of the worst. --all leaves \
            out machines that run the image already, and those that do not run.

            Examples:
              baton upgrade web1 --image /usr/lib/baton/images/baton-vmm-0.2.0
              baton upgrade web1 --image ./baton-vmm --json
              baton upgrade web1 web2 web3 --image ./baton-vmm
              baton upgrade --all --parallel 4 --image /usr/lib/baton/images/baton-vmm-0.2.0
            """)

    /// The supervisor serves 64 connections, and others may want some.
    private static let mostParallel = 32

    @Argument(help: "The machines.", completion: MachineArgument.completion) var names: [String] = []
    @Flag(help: "Every machine that runs another image.") var all = false
    @Option(help: ArgumentHelp("The image to move to.", valueName: "path"), completion: .file()) var image: String
    @Option(help: "So many machines at a time.") var parallel = 8
    @Flag(help: "Go on with the others after one has failed.") var keepGoing = false
    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if all != names.isEmpty { throw ValidationError(all ? "--all and names exclude each other." : "Name machines, or say --all.") }
        if Set(names).count < names.count { throw ValidationError("A machine is named twice.") }
        if !(1...Self.mostParallel).contains(parallel) { throw ValidationError("--parallel must be from 1 to \(Self.mostParallel).") }
    }

    func execute(in session: Session) throws(CommandFailure) {
        let path = session.absolute(image)
        if names.count > 1 || all { return try upgradeMany(to: path, in: session) }
        let target = try? session.call(.describeImage, Parameters.DescribeImage(path: path), as: Results.DescribeImage.self).image.version
        try HandoverFollower(session: session, machine: names[0], operation: "upgrade", target: target)
            .follow(.upgrade, Parameters.Upgrade(machine: names[0], image: path))
    }

    private func upgradeMany(to path: String, in session: Session) throws(CommandFailure) {
        // An image that is not allowed is told once, before any machine is touched.
        let target = try session.call(.describeImage, Parameters.DescribeImage(path: path), as: Results.DescribeImage.self).image
        var wanted = names
        var skipped: [String] = []
        if all {
            for machine in try session.call(.list, Parameters.None(), as: Results.List.self).machines {
                let isOff = machine.state == .stopped || machine.state == .crashed
                if isOff || machine.image.digest == target.digest { skipped.append(machine.name) } else { wanted.append(machine.name) }
            }
        }
        try FleetUpgrade(
            session: session, machines: wanted, skipped: skipped, image: path, version: target.version, parallel: parallel,
            keepsGoing: keepGoing
        ).run()
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

struct EventsCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Shows what happened, and with --follow what happens.",
        discussion: """
            Examples:
              baton events
              baton events --follow web1
              baton events --follow --json | jq -c 'select(.kind == "handover")'
            """)

    @Argument(help: "Only this machine's.", completion: MachineArgument.completion) var name: String?
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
