internal import Control
internal import Yams

/// Turns the text of a machine file into what the supervisor is asked for.
struct MachineFile {
    /// Longest file, 1 MiB.
    static let maximumLength = 1 << 20

    /// The file's name as it was given, for messages.
    let name: String
    /// Where relative paths in the file begin.
    private let directory: String

    /// `directory` is absolute.
    static func read(_ text: String, name: String, directory: String) throws(MachineFileFault) -> MachineSpec {
        let file = MachineFile(name: name, directory: directory)
        let root = try file.compose(text)
        let spec = try file.spec(root)
        do throws(ControlError) {
            try spec.validate()
        } catch {
            if case .invalidSpec(let key, let reason) = error { throw MappingReader.fault(name, place(of: key, in: root), key, reason) }
            throw file.whole("\(Explanation(.control(error)).what)")
        }
        return spec
    }

    private func whole(_ message: String) -> MachineFileFault {
        MachineFileFault(file: name, line: nil, column: nil, key: nil, message: message)
    }

    private func compose(_ text: String) throws(MachineFileFault) -> Node {
        guard text.utf8.count <= Self.maximumLength else { throw whole("longer than 1 MiB") }
        if let found = AliasScan.first(in: text) {
            let kind = ["&": "anchors", "*": "aliases"][found.character] ?? "tags"
            throw MachineFileFault(
                file: name, line: found.line, column: found.column, key: nil,
                message: "\(kind) (\(found.character)) are not allowed in a machine file; put the text in quotes if it is meant as text")
        }
        do {
            guard let node = try Yams.compose(yaml: text) else { throw whole("empty; it needs at least name, vcpus, memory and boot") }
            return node
        } catch let fault as MachineFileFault {
            throw fault
        } catch let error as YamlError {
            throw fault(error, in: text)
        } catch {
            throw whole("not YAML: \(error)")
        }
    }

    private func fault(_ error: YamlError, in text: String) -> MachineFileFault {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _), .composer(_, let problem, let mark, _):
            return MappingReader.fault(name, mark, nil, "not YAML: \(problem)")
        case .reader(let problem, _, _, _): return whole("not YAML: \(problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            let key = duplicates.first ?? "?"
            let place = Self.second(key, in: text, from: context.mark.line)
            return MachineFileFault(
                file: name, line: place?.line ?? context.mark.line, column: place?.column ?? context.mark.column, key: nil,
                message: "key \"\(key)\" is there twice")
        default: return whole("not YAML: \(error)")
        }
    }

    /// Where `key` stands as a key for the second time, at or after a line.
    private static func second(_ key: String, in text: String, from first: Int) -> (line: Int, column: Int)? {
        var count = 0
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() where index + 1 >= first {
            for range in line.ranges(of: "\(key):") {
                let before = line[..<range.lowerBound].last
                guard before == nil || before == " " || before == "{" || before == "," else { continue }
                count += 1
                if count == 2 { return (index + 1, line.distance(from: line.startIndex, to: range.lowerBound) + 1) }
            }
        }
        return nil
    }
}

// What the keys mean.
extension MachineFile {
    /// Every key there is, in the order in which messages list them.
    enum Keys {
        static let top = ["name", "vcpus", "vcpu-affinity", "memory", "boot", "console", "image", "devices", "upgrade"]
        static let memory = ["size", "pages", "prefault"]
        static let boot = ["kernel", "initrd", "cmdline"]
        static let console = ["socket"]
        static let upgrade = ["blackout-budget", "io-hold-budget", "soak", "on-crash", "only-upgradable"]
        static let soak = ["duration", "on-failure", "probe"]

        /// Dotted paths of all keys that hold a value.
        static var all: [String] {
            let groups = [
                ("memory", memory), ("boot", boot), ("console", console), ("upgrade", upgrade), ("upgrade.soak", soak), ("disk", disk), ("net", net),
                ("console.ports", port), ("vfio", vfio),
            ]
            let nested = groups.flatMap { group, keys in keys.map { "\(group).\($0)" } }
            return (top + nested).filter { path in !groups.contains { $0.0 == path } }
        }
    }

    private func spec(_ node: Node) throws(MachineFileFault) -> MachineSpec {
        let top = try MappingReader(
            node, file: name, path: "", allowed: Keys.top)
        _ = try top.required("name", "what the machine is called")
        _ = try top.required("vcpus", "how many CPUs the guest has")
        let upgrade = try top.mapping("upgrade", allowed: Keys.upgrade)
        let name = try top.text("name") ?? ""
        do throws(ControlError) { try MachineSpec.validate(name: name) } catch {
            if case .invalidSpec(_, let reason) = error { throw top.fault("name", "\"\(name)\": \(reason)") }
        }
        let vcpus = try top.integer("vcpus", "a number of CPUs") ?? 0
        guard 1...MachineSpec.maximumVCPUs ~= vcpus else {
            throw top.fault("vcpus", "\(vcpus) is not a number of CPUs between 1 and \(MachineSpec.maximumVCPUs)")
        }
        return MachineSpec(
            name: name, vcpus: vcpus, memory: try memory(top), boot: try boot(top),
            console: try top.mapping("console", allowed: Keys.console).map { reader throws(MachineFileFault) in
                ConsoleSpec(socket: try path("socket", in: reader))
            },
            image: try path("image", in: top), devices: try devices(top), vcpuAffinity: try affinity(top), onCrash: try crashPolicy(upgrade),
            upgrade: try upgradePolicy(upgrade))
    }

    private func memory(_ top: MappingReader) throws(MachineFileFault) -> MemorySpec {
        _ = try top.required("memory", "how much memory the guest has, as in {size: 1GiB}")
        guard let reader = try top.mapping("memory", allowed: Keys.memory) else { throw top.fault("memory", "missing") }
        _ = try reader.required("size", "how much memory the guest has, as in 1GiB")
        let pages = try reader.choice("pages", of: PageKind.self, not: "a page size this machine has") ?? .small
        let size = try reader.bytes("size") ?? 0
        guard MachineSpec.memoryBounds ~= size else { throw reader.fault("size", "not between 2MiB and 4TiB") }
        guard size.isMultiple(of: pages.sizeBytes) else { throw reader.fault("size", "not a whole number of \(pages.rawValue) pages") }
        return MemorySpec(sizeBytes: size, pages: pages, prefault: try reader.flag("prefault") ?? false)
    }

    private func boot(_ top: MappingReader) throws(MachineFileFault) -> BootSpec {
        _ = try top.required("boot", "what the guest starts from, as in {kernel: vmlinuz}")
        guard let reader = try top.mapping("boot", allowed: Keys.boot) else { throw top.fault("boot", "missing") }
        _ = try reader.required("kernel", "a bzImage, or an ELF file with a PVH entry")
        return BootSpec(
            kernel: try path("kernel", in: reader) ?? "", initrd: try path("initrd", in: reader), cmdline: try reader.text("cmdline"))
    }

    private func upgradePolicy(_ reader: MappingReader?) throws(MachineFileFault) -> UpgradePolicy {
        guard let reader else { return UpgradePolicy() }
        var policy = UpgradePolicy()
        if let budget = try reader.nanoseconds("blackout-budget") {
            guard 1...60_000_000_000 ~= budget else { throw reader.fault("blackout-budget", "not between 1ns and 1min") }
            policy.blackoutBudgetNanoseconds = budget
        }
        if let hold = try reader.nanoseconds("io-hold-budget") {
            guard 1...60_000_000_000 ~= hold else { throw reader.fault("io-hold-budget", "not between 1ns and 1min") }
            policy.ioHoldBudgetNanoseconds = hold
        }
        policy.onlyUpgradable = try reader.flag("only-upgradable") ?? false
        guard let soak = try reader.mapping("soak", allowed: Keys.soak) else { return policy }
        if soak.node("probe") != nil {
            throw soak.fault("probe", "not supported yet by this version; soak watches the worker and its vCPUs")
        }
        if let duration = try soak.nanoseconds("duration") {
            guard duration <= 86_400_000_000_000 else { throw soak.fault("duration", "longer than 24h") }
            guard duration.isMultiple(of: 1_000_000) else { throw soak.fault("duration", "not a whole number of milliseconds") }
            policy.soak.durationMilliseconds = duration / 1_000_000
        }
        policy.soak.onFailure = try soak.choice("on-failure", of: SoakPolicy.FailurePolicy.self, not: "a known answer") ?? .revert
        return policy
    }

    private func crashPolicy(_ reader: MappingReader?) throws(MachineFileFault) -> CrashPolicy {
        guard let reader, let text = try reader.text("on-crash") else { return .stop }
        if text == "rescue" { throw reader.fault("on-crash", "rescue is not supported yet by this version; use reset or stop") }
        return try reader.choice("on-crash", of: CrashPolicy.self, not: "a crash policy") ?? .stop
    }

    func path(_ key: String, in reader: MappingReader) throws(MachineFileFault) -> String? {
        guard let text = try reader.text(key) else { return nil }
        guard !text.utf8.contains(0), text.utf8.count < 4096 else { throw reader.fault(key, "not a path") }
        return AbsolutePath.of(text, in: directory)
    }
}
