import Keeper
import LinuxSystem
import Privilege

let usage = """
    Usage: baton-keep BATOND [OPTION…]

    Holds the descriptors of this host's machines and keeps BATOND, the path of the supervisor's deciding half, running.
    Every OPTION is passed on to it; see `batond --help`.

    SIGTERM ends both; machines run on. Example:
      baton-keep /usr/libexec/baton/batond --run-directory /run/baton
    """

let arguments = Array(CommandLine.arguments.dropFirst())
switch arguments.first {
case nil:
    writeToStandardError(usage)
    CurrentProcess.exitNow(2)
case "--help", "-h":
    writeToStandardOutput(usage + "\n")
case let program?:
    do {
        try? CurrentProcess.raiseOpenFileLimit(to: 65536)
        try Privilege.keepForChildren(Capability.supervisor)
        var keeper = try KeeperLoop(program: program, arguments: Array(arguments.dropFirst()))
        CurrentProcess.exitNow(keeper.run())
    } catch {
        writeToStandardError("baton-keep: cannot start: \(error)")
        CurrentProcess.exitNow(1)
    }
}
