internal import ArgumentParser
internal import Control
internal import LinuxSystem
internal import SystemPackage

struct RunCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Starts a machine from a machine file.",
        discussion: """
            Relative paths in the file are taken from the file's own directory. docs/machine-file.md has every key.

            Examples:
              baton run web1.yaml
              baton run web1.yaml --check
              sed s/web1/web2/ web1.yaml | baton run -
            """)

    @Argument(help: "The machine file, or - for standard input.", completion: .file(extensions: ["yaml", "yml"]))
    var file: String
    @Flag(help: "Only check the file; nothing is started.") var check = false
    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let spec = try spec(in: session)
        if check {
            session.show(spec, text: "\(session.style.bold(spec.name)): the file is in order\n")
            return
        }
        let machine = try session.call(.run, Parameters.Run(spec: spec), as: Results.OneMachine.self).machine
        session.show(machine, text: session.machines.started(machine))
    }

    private func spec(in session: Session) throws(CommandFailure) -> MachineSpec {
        let path = session.absolute(file)
        let directory = file == "-" ? session.context.workingDirectory : FilePath(path).removingLastComponent().string
        let bytes = try InputFile.read(file, at: path, limit: MachineFile.maximumLength)
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .unsuitable(path: file, reason: "not a text in UTF-8") }
        do { return try MachineFile.read(text, name: file, directory: directory) } catch { throw .machineFile(error) }
    }
}

/// Files that commands read on this side of the socket.
enum InputFile {
    /// The whole of a file, or of standard input for `-`. `name`: as the caller wrote it, for messages.
    static func read(_ name: String, at path: String, limit: Int) throws(CommandFailure) -> [UInt8] {
        do throws(Errno) {
            if name == "-" { return try readStandardInput(limit: limit) }
            return try OwnedDescriptor.open(path, .read, followingLinks: true).readAll(limit: limit)
        } catch {
            throw .unreadable(path: name, reason: error == .fileTooLarge ? "longer than \(Quantity.bytes(limit))" : "\(error)")
        }
    }

    private static func readStandardInput(limit: Int) throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let chunk = try StandardStream.input.read(upTo: 65536)
            if chunk.isEmpty { return bytes }
            bytes += chunk
            if bytes.count > limit { throw .fileTooLarge }
        }
    }
}
