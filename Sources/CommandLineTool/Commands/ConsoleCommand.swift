internal import ArgumentParser
internal import Control
internal import LinuxSystem
internal import SystemPackage

struct ConsoleCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "console", abstract: "Attaches to a guest's console. Leave it with ^].",
        discussion: """
            The console survives handovers. Without a terminal, standard input is sent and what the guest says is written to standard \
            output until the machine ends.

            Examples:
              baton console web1
              baton console web1 < /dev/null > web1.log
            """)

    /// `^]`, as in telnet.
    private static let escape: UInt8 = 0x1D

    @OptionGroup var machine: MachineArgument
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        CurrentProcess.ignore(.pipe)
        var client = try session.connect()
        client.send(.console, machine.parameters, upgrade: true)
        guard case .reply = try client.next(Results.None.self) else { return }
        let pending = client.takePending()
        let isTerminal = StandardStream.input.isTerminal
        if isTerminal { session.context.errors.write("\(machine.name): attached; leave with ^]\n") }
        do throws(Errno) {
            let stream = try client.stream()
            let raw = isTerminal ? try RawTerminal(.input) : nil
            try? StandardStream.output.write(pending)
            try Self.relay(stream, hasEscape: isTerminal)
            // The terminal is raw until here.
            _ = consume raw
        } catch {
            throw .control(.failed(reason: "the console ended: \(error)"))
        }
        if isTerminal { session.context.errors.write("\n\(machine.name): detached\n") }
    }

    /// Passes bytes both ways until the escape is typed or the machine's side ends.
    private static func relay(_ stream: borrowing OwnedDescriptor, hasEscape: Bool) throws(Errno) {
        var inputIsOpen = true
        while true {
            var poll = Poll([(stream.number, .readable)])
            if inputIsOpen { poll.add(StandardStream.input.rawValue) }
            try poll.wait(timeout: nil)
            if !poll.result(at: 0).isEmpty {
                let arrived = try stream.read(upTo: 65536)
                // Nobody listens any more, as after `| head`: that is an end like another.
                guard !arrived.isEmpty, (try? StandardStream.output.write(arrived)) != nil else { return }
            }
            if inputIsOpen, !poll.result(at: 1).isEmpty {
                let typed = try StandardStream.input.read(upTo: 4096)
                inputIsOpen = !typed.isEmpty
                let end = hasEscape ? typed.firstIndex(of: escape) : nil
                try stream.writeAll(Array(typed[..<(end ?? typed.endIndex)]))
                if end != nil { return }
            }
        }
    }
}
