internal import ArgumentParser
internal import Control

/// The root of all commands.
struct BatonCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baton",
        abstract: "Runs virtual machines, and replaces the VMM under a running one.",
        discussion: """
            Examples:
              baton run web1.yaml
              baton upgrade web1 --image /usr/lib/baton/images/baton-vmm-0.2.0
              baton rollback web1
              baton list --json

            Exit codes: 0 done, 1 failed, 2 usage, 3 refused and nothing touched, 4 aborted and the old worker runs, \
            5 reverted, 6 not found, 7 no supervisor, 130 interrupted.
            """,
        version: ProductVersion.current,
        subcommands: [],
        groupedSubcommands: [
            CommandGroup(
                name: "Machines",
                subcommands: [
                    RunCommand.self, ListCommand.self, ShowCommand.self, ConsoleCommand.self, PauseCommand.self, ResumeCommand.self,
                    StopCommand.self,
                ]),
            CommandGroup(
                name: "Handovers",
                subcommands: [
                    UpgradeCommand.self, RollbackCommand.self, AbortCommand.self, HistoryCommand.self, StatisticsCommand.self, EventsCommand.self,
                ]),
            CommandGroup(name: "Looking closer", subcommands: [ImageCommand.self, CheckpointCommand.self, DoctorCommand.self]),
        ])
}

/// What every command takes.
struct GlobalOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The supervisor's socket. Otherwise BATON_SOCKET, /run/baton/io.baton.Supervisor, or the same below XDG_RUNTIME_DIR.",
            valueName: "path"), completion: .file())
    var socket: String?

    @Flag(help: "Write JSON: one object, or one a line where there are many.")
    var json = false

    /// `baton --json list` as `baton list --json`: every command has these options, so they may come first as well.
    static func moved(behindCommandIn arguments: [String]) -> [String] {
        var leading: [String] = []
        var rest = arguments[...]
        while let first = rest.first, first == "--json" || first == "--socket" || first.hasPrefix("--socket=") {
            let count = first == "--socket" ? 2 : 1
            leading += rest.prefix(count)
            rest = rest.dropFirst(count)
        }
        guard !leading.isEmpty, !rest.isEmpty else { return arguments }
        let end = rest.firstIndex(of: "--") ?? rest.endIndex
        return rest[..<end] + leading + rest[end...]
    }
}

/// A command that does something.
protocol SupervisorCommand: ParsableCommand {
    var global: GlobalOptions { get }
    func execute(in session: Session) throws(CommandFailure)
}

/// The machine a command is about.
struct MachineArgument: ParsableArguments {
    static let completion = CompletionKind.shellCommand("baton list --names 2>/dev/null")

    @Argument(help: "The machine.", completion: completion)
    var name: String

    var parameters: Parameters.OneMachine { .init(machine: name) }
}
