internal import ArgumentParser
internal import Control
internal import LinuxSystem

/// The `baton` program: arguments in, exit status out.
package enum Program {
    /// Runs with this process's arguments and streams, and ends it.
    package static func main() -> Never {
        let status = run(Array(CommandLine.arguments.dropFirst()), in: .process)
        exit(status)
    }

    /// Runs one command.
    package static func run(_ arguments: [String], in context: Context) -> ExitStatus {
        var command: any ParsableCommand
        do {
            command = try BatonCommand.parseAsRoot(GlobalOptions.moved(behindCommandIn: arguments))
            // What is no command of ours is ArgumentParser's own: help, or a group without one of its commands.
            if !(command is any SupervisorCommand) { try command.run() }
        } catch {
            return finishParsing(error, in: context)
        }
        guard let command = command as? any SupervisorCommand else { return .done }
        do throws(CommandFailure) {
            try command.execute(in: Session(context: context, global: command.global))
            return .done
        } catch {
            report(error, json: command.global.json, in: context)
            return error.status
        }
    }

    private static func report(_ failure: CommandFailure, json: Bool, in context: Context) {
        let style = Style(for: context.errors, environment: context.environment)
        context.errors.write(json ? failure.json + "\n" : failure.text(style))
    }

    /// Help, version and completion scripts end parsing as errors do.
    private static func finishParsing(_ error: any Error, in context: Context) -> ExitStatus {
        let isError = BatonCommand.exitCode(for: error) != .success
        let stream = isError ? context.errors : context.output
        let message = BatonCommand.fullMessage(for: error, columns: columns(of: stream))
        stream.write((message.hasPrefix("Error: ") ? "baton: \(message.dropFirst(7))" : message) + "\n")
        return isError ? .usage : .done
    }

    private static func columns(of stream: any TextStream) -> Int { min(stream.columns, 120) }

    private static func exit(_ status: ExitStatus) -> Never {
        BatonCommand.exit(withError: status == .done ? nil : ExitCode(status.rawValue))
    }
}
