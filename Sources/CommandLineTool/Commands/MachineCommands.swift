internal import ArgumentParser
internal import Control

struct ListCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists machines.",
        discussion: """
            Examples:
              baton list
              baton list --json | jq '.[] | select(.state == "running") | .name'
            """)

    @OptionGroup var global: GlobalOptions
    @Flag(help: "Only names, one a line.") var names = false

    func execute(in session: Session) throws(CommandFailure) {
        let machines = try session.call(.list, Parameters.None(), as: Results.List.self).machines
        let text = names ? machines.map { $0.name + "\n" }.joined() : session.machines.list(machines)
        session.show(machines, text: text)
    }
}

struct ShowCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Shows everything about one machine.",
        discussion: """
            Also says whether the machine can be reverted, and to which image.

            Examples:
              baton show web1
            """)

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let details = try session.call(.show, machine.parameters, as: Results.Show.self).details
        session.show(details, text: session.machines.details(details))
    }
}

struct PauseCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Stops a guest's vCPUs.",
        discussion: """
            The guest's memory stays where it is; baton resume lets it go on.

            Examples:
              baton pause web1
            """)

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let nothing = try session.call(.pause, machine.parameters, as: Results.None.self)
        session.show(nothing, text: "\(session.style.bold(machine.name)) paused\n")
    }
}

struct ResumeCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Lets a paused guest go on.",
        discussion: """
            Examples:
              baton resume web1
            """)

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let nothing = try session.call(.resume, machine.parameters, as: Results.None.self)
        session.show(nothing, text: "\(session.style.bold(machine.name)) running\n")
    }
}

struct StopCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop", abstract: "Ends a machine.",
        discussion: """
            The guest is asked to switch itself off, and has 30 s for it. With --force its worker is killed, which is like cutting its power.

            Examples:
              baton stop web1
              baton stop web1 --force
            """)

    @OptionGroup var machine: MachineArgument
    @Flag(help: "Kill the worker without asking the guest.") var force = false
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let parameters = Parameters.Stop(machine: machine.name, force: force ? true : nil)
        let nothing = try session.call(.stop, parameters, as: Results.None.self)
        session.show(nothing, text: "\(session.style.bold(machine.name)) stopped\n")
    }
}
