internal import Control
internal import FoundationEssentials
internal import LinuxSystem

/// What a run of the program has around it: everything it reads or writes besides its arguments.
package struct Context: Sendable {
    package var environment: [String: String]
    package var output: any TextStream
    package var errors: any TextStream
    /// Absolute.
    package var workingDirectory: String
    /// Nanoseconds since 1970.
    package var now: @Sendable () -> Int
    /// Nanoseconds of a clock that only goes forward.
    package var clock: @Sendable () -> Int
    /// Called before something is begun that goes on when its watcher is interrupted.
    package var interrupt: @Sendable () -> (any Interrupt)? = { nil }

    package init(
        environment: [String: String], output: any TextStream, errors: any TextStream, workingDirectory: String,
        now: @escaping @Sendable () -> Int, clock: @escaping @Sendable () -> Int
    ) {
        self.environment = environment
        self.output = output
        self.errors = errors
        self.workingDirectory = workingDirectory
        self.now = now
        self.clock = clock
    }

    /// This process's own.
    package static var process: Context {
        var context = Context(
            environment: ProcessInfo.processInfo.environment, output: StandardTextStream(.output), errors: StandardTextStream(.error),
            workingDirectory: FileManager.default.currentDirectoryPath, now: { Int(SystemClock.wall()) },
            clock: { Int(SystemClock.monotonic()) })
        context.interrupt = { InterruptKey() }
        return context
    }
}

/// A command's view of its run: where the supervisor is, and how results are to look.
struct Session {
    let context: Context
    let global: GlobalOptions

    var style: Style { Style(for: context.output, environment: context.environment) }
    var machines: MachineText { MachineText(style: style, now: context.now()) }
    var history: HistoryText { HistoryText(style: style, now: context.now()) }
    var descriptions: DescriptionText { DescriptionText(style: style) }

    func connect() throws(CommandFailure) -> SupervisorClient {
        try SupervisorClient(connectingToOneOf: SocketPath.candidates(named: global.socket, environment: context.environment))
    }

    /// One call with one reply.
    func call<Result: Decodable>(
        _ method: SupervisorMethod, _ parameters: some Encodable, as type: Result.Type
    ) throws(CommandFailure) -> Result {
        var client = try connect()
        return try client.call(method, parameters, as: type)
    }

    /// Writes a result: as an object for programs, or as text for people.
    func show(_ value: some Encodable, text: String) {
        context.output.write(global.json ? jsonText(value, indented: true) + "\n" : text)
    }

    /// A path as the supervisor can use it, whose working directory is another.
    func absolute(_ path: String) -> String { AbsolutePath.of(path, in: context.workingDirectory) }
}
