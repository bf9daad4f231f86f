// A batond for tests: `batond-held --hold STEP --hold-marker FILE OPTION…` stops at a named step until it is killed, FILE is removed, or
// half a minute has passed. FILE is made as the step is reached; while it is there, nothing else is held, so that the next process goes on.
import ArgumentParser
import Handover
import LinuxSystem
import SupervisorProgram

var arguments = Array(CommandLine.arguments.dropFirst())

func take(_ name: String, from arguments: inout [String]) -> String? {
    guard let index = arguments.firstIndex(of: name), index + 1 < arguments.count else { return nil }
    defer { arguments.removeSubrange(index...index + 1) }
    return arguments[index + 1]
}

let held = take("--hold", from: &arguments).flatMap(Step.init(rawValue:))
let marker = take("--hold-marker", from: &arguments)
do {
    let command = try BatondCommand.parse(arguments)
    try command.run { step in
        guard step == held, let marker, !FileSystem.exists(marker) else { return }
        guard (try? OwnedDescriptor.open(marker, .replace)) != nil else { return }
        let end = SystemClock.monotonic() + 30_000_000_000
        while FileSystem.exists(marker), SystemClock.monotonic() < end { SystemClock.sleep(.milliseconds(10)) }
    }
} catch {
    BatondCommand.exit(withError: error)
}
