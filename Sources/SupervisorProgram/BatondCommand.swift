package import ArgumentParser
internal import Keeper
internal import LinuxSystem
internal import Privilege
package import Supervisor
internal import SystemPackage

/// `batond`: the deciding half of the supervisor. `baton-keep` starts it.
package struct BatondCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "batond",
        abstract: "Runs machines and moves them from one VMM to the next.",
        discussion: """
            Started by baton-keep, which passes these options on and starts it again when it ends:

              baton-keep /usr/libexec/baton/batond --image-directory /usr/lib/baton/images
              baton-keep ./batond --run-directory /tmp/b --image-directory "$PWD/images"

            SIGTERM ends it; machines run on, unless --stop-machines says otherwise.
            The configuration file is a JSON object: {"socket": "…", "runDirectory": "…", "imageDirectories": ["…"],
            "fileDirectories": ["…"], "diskDirectories": ["…"], "defaultImage": "…", "workerUserBase": 600000}. Options win over it.
            """,
        version: SupervisorCore.version)

    @Option(help: ArgumentHelp("The custody session that baton-keep passes on.", valueName: "descriptor"))
    var custody: Int32?

    @Option(help: "Configuration file; /etc/baton/batond.json when there is one.")
    var config: String?

    @Option(help: "Where the control socket is; io.baton.Supervisor in the run directory otherwise.")
    var socket: String?

    @Option(help: "The control socket's mode, in octal.")
    var socketMode: String = "0660"

    @Flag(help: "Let everybody whom the socket's mode lets in use it, not only this user and root.")
    var socketAccessByMode = false

    @Option(help: "Journals, logs and the socket; /run/baton for root, else $XDG_RUNTIME_DIR/baton.")
    var runDirectory: String?

    @Option(name: .customLong("image-directory"), help: "Worker images must lie below one of these. Repeatable; /usr/lib/baton/images otherwise.")
    var imageDirectories: [String] = []

    @Option(name: .customLong("file-directory"), help: "Kernels and RAM disks must lie below one of these. Repeatable; / otherwise.")
    var fileDirectories: [String] = []

    @Option(
        name: .customLong("disk-directory"),
        help: "Disks must lie below one of these, block devices too. Repeatable; /var/lib/baton/disks for root, / otherwise.")
    var diskDirectories: [String] = []

    @Option(help: "The worker image of machines that name none.")
    var defaultImage: String?

    @Option(help: "First of the users set aside for workers.")
    var workerUserBase: UInt32?

    @Option(help: "Seconds an incoming worker has to build its machine, beside one for each GiB of memory.")
    var prepareSeconds: Int = 10

    @Option(help: "Seconds a worker has for any other answer while its guest runs.")
    var answerSeconds: Int = 5

    @Flag(help: "On SIGTERM, switch every machine off before ending.")
    var stopMachines = false

    package init() {}

    package mutating func run() throws { try run(hook: { _ in }) }

    /// `hook` is called at every named step; tests hold or kill the supervisor there.
    package func run(hook: @escaping StepHook) throws {
        // Credentials belong to threads, so this comes before anything that might start one.
        let kept = try Privilege.confine(to: Capability.supervisor)
        CurrentProcess.returnLargeBlocks()
        try SpawnRequest.prepare()  // what custody holds comes after it
        guard let custody else {
            throw ValidationError("batond is started by baton-keep: run `baton-keep \(CommandLine.arguments[0]) …`")
        }
        let signals = try SignalDescriptor([.terminate, .interrupt])
        CurrentProcess.ignore(.pipe)
        let settings = try configuration()
        try FileSystem.createDirectory(settings.runDirectory)
        let client = CustodyClient(UnixSocket(OwnedDescriptor(owning: custody)))
        let host = try Host(
            settings, custody: client, changesUsers: [.setUID, .setGID, .kill].allSatisfy(kept.contains), raisesLimits: kept.contains(.sysResource),
            hook: hook)
        let core = try SupervisorCore(host: host)
        try core.start()
        let server = try listen(settings.socketPath, core)
        announce(settings, kept)
        _ = try Poll.one(signals.descriptor.number, timeout: nil)
        server.stop()
        if stopMachines { core.stopMachines(within: .seconds(10)) }
        CurrentProcess.exitNow(0)  // threads of running handovers end here; the commit word tells the next batond where they were
    }

    private func listen(_ path: String, _ core: SupervisorCore) throws -> VarlinkServer {
        guard let mode = UInt32(socketMode, radix: 8), mode <= 0o777 else {
            throw ValidationError("--socket-mode: \(socketMode) is not an octal mode such as 0660")
        }
        var options = VarlinkServer.Configuration()
        options.access = socketAccessByMode ? .socketMode : .owners
        options.log = { writeToStandardError("batond: \($0)") }
        let server = try VarlinkServer(listener: try listener(path, mode), service: core, configuration: options)
        try server.start()
        return server
    }

    private func listener(_ path: String, _ mode: UInt32) throws -> UnixListener {
        do throws(Errno) {
            return try UnixListener(path: path, permissions: mode)
        } catch {
            guard error == .addressInUse else { throw error }
            // Who listens there is what the kernel noted as it began to.
            let other = (try? UnixSocket.connect(to: path).peer().pid).map { " (process \($0))" } ?? ""
            writeToStandardError(
                """
                batond: another batond\(other) answers at \(path) already.
                  If its baton-keep has ended, it still has its machines, but no custody: end them with `baton stop`, then end that process;
                  this batond takes over at its next attempt. If it belongs to another baton-keep, give this one its own --run-directory.
                """)
            throw ExitCode.failure
        }
    }

    private func announce(_ settings: Configuration, _ kept: [Capability]) {
        let rights =
            kept.isEmpty
            ? "without privileges: only taps and VFIO groups of this user, workers run as this user"
            : "keeping \(kept.map(\.description).joined(separator: " "))"
        writeToStandardError("batond \(SupervisorCore.version): \(settings.socketPath), \(rights)")
    }

    private func configuration() throws -> Configuration {
        let standard = "/etc/baton/batond.json"
        let file = try (config ?? (FileSystem.exists(standard) ? standard : nil)).map(SettingsFile.init(path:))
        let userDirectory = ProcessEnvironment["XDG_RUNTIME_DIR"].map { $0 + "/baton" }
        let run = runDirectory ?? file?.runDirectory ?? (CurrentProcess.userID == 0 ? "/run/baton" : userDirectory)
        guard let run else { throw ValidationError("--run-directory is needed: there is no XDG_RUNTIME_DIR") }
        func first(_ lists: [String]...) -> [String] { lists.first { !$0.isEmpty } ?? [] }
        var settings = Configuration(
            runDirectory: run, socketPath: socket ?? file?.socket ?? "\(run)/io.baton.Supervisor",
            imageDirectories: first(imageDirectories, file?.imageDirectories ?? [], ["/usr/lib/baton/images"]),
            fileDirectories: first(fileDirectories, file?.fileDirectories ?? [], ["/"]),
            diskDirectories: first(
                diskDirectories, file?.diskDirectories ?? [], [CurrentProcess.userID == 0 ? "/var/lib/baton/disks" : "/"]),
            workerUserBase: workerUserBase ?? file?.workerUserBase ?? 600_000)
        settings.defaultImage = defaultImage ?? file?.defaultImage
        settings.prepareDeadline = .seconds(max(1, prepareSeconds))
        settings.answerDeadline = .seconds(max(1, answerSeconds))
        return settings
    }
}
