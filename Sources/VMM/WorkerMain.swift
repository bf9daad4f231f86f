internal import Channel
internal import Handover
package import LinuxSystem

/// The one entry of every worker image.
package enum WorkerMain {
    /// The session socket's number: 0 and 1 lead nowhere, 2 is the log.
    private static let session: CInt = 3

    /// Runs a worker to its end and returns the process's exit status.
    ///
    /// - Parameters:
    ///   - identity: what the image says it is.
    ///   - failpoints: ``Failpoints/none`` in every shipped program.
    ///   - arguments: as given to the process, its name first.
    package static func run(identity: WorkerImage, failpoints: Failpoints, arguments: [String] = CommandLine.arguments) -> Int32 {
        switch arguments.dropFirst().first {
        case "--describe":
            writeToStandardOutput(identity.describe() + "\n")
            return 0
        case "--version":
            writeToStandardOutput("baton-vmm \(identity.version)\n")
            return 0
        case "--help":
            writeToStandardOutput(help)
            return 0
        case let other?:
            writeToStandardError("baton-vmm: \(other) is not an option; --help lists them")
            return 64
        case nil:
            return serve(identity, failpoints)
        }
    }

    private static func serve(_ image: WorkerImage, _ failpoints: Failpoints) -> Int32 {
        guard let socket = UnixSocket.inherited(session) else {
            writeToStandardError("baton-vmm: descriptor 3 is not open; batond starts workers, see --help")
            return 64
        }
        do {
            try SystemThread.installKickHandler()
            try failpoints.reached(.hello)
        } catch {
            writeToStandardError("baton-vmm: \(error)")
            return 70
        }
        serve(socket, image, failpoints)
        return 0
    }

    /// Serves one session until it ends, on the calling thread.
    package static func serve(_ socket: consuming UnixSocket, _ image: WorkerImage, _ failpoints: Failpoints) {
        WorkerSession(SupervisorChannel(socket), image: image, failpoints: failpoints).serve()
    }

    private static let help = """
        usage: baton-vmm [--describe | --version | --help]

        Runs one virtual machine with the descriptors it is lent over the session socket, descriptor 3. batond starts it so; by hand it
        only answers:

          --describe   what this image is: version, models, checkpoint sections, needs, as JSON
          --version    its version
          --help       this text

        """
}
