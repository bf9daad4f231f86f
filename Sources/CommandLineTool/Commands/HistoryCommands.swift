internal import ArgumentParser
internal import Control

struct HistoryCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Lists a machine's past handovers, newest first.",
        discussion: """
            With --timeline each is a picture: every step and message at its place in time, with microseconds, its share, and what \
            nothing accounts for; the blackout once more by itself. It fits 80 to 120 columns.

            Examples:
              baton history web1
              baton history web1 --timeline --last
              baton history web1 --phases --limit 1
              baton history web1 --json | jq '.[0].blackoutNanoseconds'
              baton history web1 --timeline --last --json | jq '.[0].timeline.blackout.parts'
            """)

    /// A record, and where its time went.
    private struct Pictured: Encodable {
        let handover: HandoverRecord
        let timeline: Timeline
    }

    @OptionGroup var machine: MachineArgument
    @Option(help: "At most so many.") var limit: Int?
    @Flag(help: "Only the newest.") var last = false
    @Flag(help: "Show what each blackout was spent on.") var phases = false
    @Flag(help: "Show each handover as a picture of its steps in time.") var timeline = false
    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if let limit, limit < 1 { throw ValidationError("--limit must be at least 1.") }
        if last, limit != nil { throw ValidationError("--last and --limit exclude each other.") }
        if phases, timeline { throw ValidationError("--phases and --timeline exclude each other.") }
    }

    func execute(in session: Session) throws(CommandFailure) {
        let parameters = Parameters.History(machine: machine.name, limit: last ? 1 : limit)
        let handovers = try session.call(.history, parameters, as: Results.History.self).handovers
        guard timeline else {
            return session.show(handovers, text: phases ? session.history.phases(handovers) : session.history.history(handovers))
        }
        let picture = TimelineText(style: session.style, now: session.context.now(), columns: session.context.output.columns)
        session.show(handovers.map { Pictured(handover: $0, timeline: Timeline($0)) }, text: picture.text(handovers))
    }
}

struct StatisticsCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Shows percentiles over past handovers, of one machine or of all.",
        discussion: """
            Blackout, I/O hold, the whole handover and each of its phases; how handovers ended, and the same by images. Counted are the \
            newest 1000 of each machine that baton list shows, since its power-on. Percentiles are exact to 0.2 %.

            Examples:
              baton stats
              baton stats web1
              baton stats --json | jq '.blackout.p99Nanoseconds'
            """)

    /// What the supervisor gives at most.
    private static let limit = 1000

    @Argument(help: "The machine; all of them without.", completion: MachineArgument.completion) var name: String?
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        var client = try session.connect()
        var statistics = HandoverStatistics()
        let names: [String]
        if let name {
            names = [name]
        } else {
            names = try client.call(.list, Parameters.None(), as: Results.List.self).machines.map(\.name)
        }
        for machine in names {
            do throws(CommandFailure) {
                let parameters = Parameters.History(machine: machine, limit: Self.limit)
                statistics.add(try client.call(.history, parameters, as: Results.History.self).handovers)
            } catch .control(.machineNotFound) where name == nil {
                continue  // gone since the list was made
            }
        }
        session.show(statistics, text: StatisticsText(style: session.style).text(statistics))
    }
}
