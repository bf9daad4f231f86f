internal import ArgumentParser
internal import Checkpoint
internal import Control

struct ImageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "Looks at worker images.",
        discussion: """
            Examples:
              baton image describe /usr/lib/baton/images/baton-vmm-0.2.0
            """,
        subcommands: [DescribeCommand.self])

    struct DescribeCommand: SupervisorCommand {
        static let configuration = CommandConfiguration(
            commandName: "describe", abstract: "Shows what an image says of itself, without starting a machine.",
            discussion: """
                Which checkpoint sections it can write and read decides between which images a machine can move.

                Examples:
                  baton image describe /usr/lib/baton/images/baton-vmm-0.2.0
                """)

        @Argument(help: "The image.", completion: .file()) var path: String
        @OptionGroup var global: GlobalOptions

        func execute(in session: Session) throws(CommandFailure) {
            let parameters = Parameters.DescribeImage(path: session.absolute(path))
            let image = try session.call(.describeImage, parameters, as: Results.DescribeImage.self).image
            session.show(image, text: session.descriptions.image(image))
        }
    }
}

struct CheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint", abstract: "Looks at checkpoints.",
        discussion: """
            Examples:
              baton checkpoint inspect web1.checkpoint
            """,
        subcommands: [InspectCommand.self])

    struct InspectCommand: SupervisorCommand {
        static let configuration = CommandConfiguration(
            commandName: "inspect", abstract: "Lists the sections of a checkpoint file, damaged ones included.",
            discussion: """
                Needs no supervisor and changes nothing. Exits with 1 when something is damaged.

                Examples:
                  baton checkpoint inspect web1.checkpoint
                """)

        @Argument(help: "The checkpoint file.", completion: .file()) var file: String
        @OptionGroup var global: GlobalOptions

        func execute(in session: Session) throws(CommandFailure) {
            let bytes = try InputFile.read(file, at: session.absolute(file), limit: CheckpointFormat.maximumLength)
            let inspection: CheckpointInspection
            do { inspection = try CheckpointInspection(bytes) } catch { throw .unsuitable(path: file, reason: "\(error)") }
            session.show(CheckpointListing(inspection), text: session.descriptions.checkpoint(inspection, path: file))
            if !inspection.isIntact { throw .unsuitable(path: file, reason: "the checkpoint is damaged") }
        }
    }
}

/// A checkpoint's listing, for programs.
struct CheckpointListing: Encodable {
    struct Section: Encodable {
        let name: String
        let instance: Int
        let version: Int
        let minimumReader: Int
        let mustUnderstand: Bool
        let offset: Int
        let lengthBytes: Int
        let intact: Bool
    }

    let machine: String
    let generation: Int
    let writer: String
    let formatVersion: Int
    let lengthBytes: Int
    let digestMatches: Bool
    let sections: [Section]

    init(_ inspection: CheckpointInspection) {
        let header = inspection.header
        machine = "\(header.machine)"
        generation = Int(clamping: header.generation)
        writer = header.writer
        formatVersion = Int(header.formatVersion)
        lengthBytes = header.totalLength
        digestMatches = inspection.digestMatches
        sections = inspection.sections.map { section in
            let about = section.description
            return Section(
                name: about.key.name, instance: Int(about.key.instance), version: Int(about.version),
                minimumReader: Int(about.minimumReader), mustUnderstand: about.mustUnderstand, offset: about.offset,
                lengthBytes: about.content.count, intact: section.isIntact)
        }
    }
}

struct DoctorCommand: SupervisorCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Shows what this host can do, and what it lacks.",
        discussion: """
            Examples:
              baton doctor
            """)

    @OptionGroup var global: GlobalOptions

    func execute(in session: Session) throws(CommandFailure) {
        let checks = try session.call(.doctor, Parameters.None(), as: Results.Doctor.self).checks
        session.show(checks, text: session.descriptions.checks(checks))
    }
}
