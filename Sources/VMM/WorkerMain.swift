internal import Channel
internal import Handover
package import LinuxSystem

/// The one entry of every worker image.
package enum WorkerMain {
    /// Runs a worker to its end and returns the process's exit status.
    ///
    /// - Parameters:
    ///   - identity: what the image says it is.
    ///   - failpoints: ``Failpoints/none`` in every shipped program.
    ///   - arguments: as given to the process, its name first.
    package static func run(identity: WorkerImage, failpoints: Failpoints, arguments: [String] = CommandLine.arguments) -> Int32 {
        switch WorkerArguments(arguments) {
        case .describe: writeToStandardOutput(identity.describe() + "\n")
        case .version: writeToStandardOutput("baton-vmm \(identity.version)\n")
        case .help: writeToStandardOutput(WorkerArguments.text)
        case .wrong(let reason):
            writeToStandardError("baton-vmm: \(reason); --help says more")
            return 64
        case .serve(let session, let generation):
            guard let socket = UnixSocket.inherited(session) else {
                writeToStandardError("baton-vmm: descriptor \(session) is not open; batond starts workers, --help says more")
                return 64
            }
            CurrentProcess.keepFreedMemory(1 << 20)
            do { _ = try Confinement.confine() } catch {
                writeToStandardError("baton-vmm: \(error)")
                return 70
            }
            return serve(socket, identity, generation: generation, failpoints)
        }
        return 0
    }

    /// Serves one session until it ends, on the calling thread.
    @discardableResult
    package static func serve(_ socket: consuming UnixSocket, _ image: WorkerImage, generation: UInt32, _ failpoints: Failpoints) -> Int32 {
        do {
            try SystemThread.installKickHandler()
            try failpoints.reached(.hello)
        } catch {
            writeToStandardError("baton-vmm: \(error)")
            return 70
        }
        let session = WorkerSession(SupervisorChannel(socket), image: image, generation: generation, failpoints: failpoints)
        session.serve()
        session.machine?.finish()
        return 0
    }
}

/// What a worker's command line asks for.
enum WorkerArguments: Equatable {
    case serve(session: CInt, generation: UInt32)
    case describe, version, help
    case wrong(String)

    init(_ arguments: [String]) {
        var session: CInt = 3
        var generation: UInt32?
        var rest = arguments.dropFirst()
        while let option = rest.popFirst() {
            switch option {
            case "--describe": self = .describe
            case "--version": self = .version
            case "--help": self = .help
            case "--session", "--generation", "--machine":
                guard let value = rest.popFirst() else {
                    self = .wrong("\(option) needs a value")
                    return
                }
                if option == "--machine" { continue }  // for people who list processes; the session says it too
                guard let number = UInt32(value), option == "--generation" || number < 1024 else {
                    self = .wrong("\(option) \(value) is not a number it takes")
                    return
                }
                if option == "--session" { session = CInt(number) } else { generation = number }
                continue
            default: self = .wrong("\(option) is not an option")
            }
            return
        }
        guard let generation else {
            self = .wrong("--generation is missing: batond starts workers")
            return
        }
        self = .serve(session: session, generation: generation)
    }

    static let text = """
        usage: baton-vmm --generation N [--session FD] [--machine NAME]
               baton-vmm --describe | --version | --help

        Runs one virtual machine with the descriptors it is lent over the session socket. batond starts it so.

          --generation N   which of the machine's workers this is
          --session FD     number of the session socket, 3 if not given
          --machine NAME   for people who list processes
          --describe       what this image is: version, models, checkpoint sections, needs, as JSON
          --version        its version
          --help           this text

        """
}
