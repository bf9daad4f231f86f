internal import Checkpoint
internal import Control

/// Images, checkpoints and the doctor's findings, as the command line shows them.
struct DescriptionText {
    let style: Style

    func image(_ image: ImageDescription) -> String {
        var table = Table([.init(""), .init("")])
        table.add([.init("  version", style.dim), "\(image.version)"])
        table.add([.init("  sha256", style.dim), "\(image.digest)"])
        table.add([.init("  models", style.dim), "\(image.models.joined(separator: ", "))"])
        if !image.features.isEmpty { table.add([.init("  features", style.dim), "\(image.features.joined(separator: ", "))"]) }
        if !image.needs.isEmpty { table.add([.init("  needs", style.dim), "\(image.needs.joined(separator: ", "))"]) }
        var sections = Table([.init("SECTION"), .init("WRITES", .right), .init("READS", .right)])
        for section in image.sections {
            sections.add(["\(section.name)", "\(range(section.writes))", "\(range(section.reads))"])
        }
        return "\(style.bold(image.path.printable))\n" + table.render(style) + "\n" + sections.render(style)
    }

    private func range(_ range: ImageDescription.VersionRange) -> String {
        range.lowest == range.highest ? "\(range.lowest)" : "\(range.lowest)–\(range.highest)"
    }

    func checks(_ checks: [Check]) -> String {
        var table = Table([.init(""), .init(""), .init("")])
        for check in checks { table.add([mark(check.verdict), "\(check.name)", "\(check.detail)"]) }
        return table.render(style)
    }

    private func mark(_ verdict: Check.Verdict) -> Table.Cell {
        switch verdict {
        case .ok: .init("✔", style.green)
        case .missing: .init("✘", style.red)
        case .warning: .init("!", style.yellow)
        }
    }

    func checkpoint(_ inspection: CheckpointInspection, path: String) -> String {
        let header = inspection.header
        var facts = Table([.init(""), .init("")])
        facts.add([.init("  machine", style.dim), "\(header.machine)"])
        facts.add([.init("  generation", style.dim), "\(header.generation)"])
        facts.add([.init("  writer", style.dim), "\(header.writer)"])
        facts.add([.init("  format", style.dim), "\(header.formatVersion)"])
        facts.add([.init("  length", style.dim), "\(Quantity.bytes(header.totalLength)) in \(header.sectionCount) sections"])
        facts.add([.init("  digest", style.dim), inspection.digestMatches ? "matches" : .init("does not match", style.red)])
        var sections = Table([
            .init("SECTION"), .init("VERSION", .right), .init("READABLE FROM", .right), .init("REQUIRED"), .init("OFFSET", .right),
            .init("LENGTH", .right), .init("STATE"),
        ])
        for section in inspection.sections {
            let about = section.description
            sections.add([
                "\(about.key)", "\(about.version)", "\(about.minimumReader)", "\(about.mustUnderstand ? "yes" : "no")", "\(about.offset)",
                "\(about.content.count)", section.isIntact ? .init("intact", style.green) : .init("damaged", style.red),
            ])
        }
        return "\(style.bold(path.printable))\n" + facts.render(style) + "\n" + sections.render(style)
    }
}
