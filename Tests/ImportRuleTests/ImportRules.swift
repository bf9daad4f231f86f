/// One Swift file of a target.
struct SourceFile {
    let target: String
    /// From the top of the repository.
    let path: String
    let lines: Int
    let code: SourceCode

    init(target: String, path: String, text: String) {
        self.target = target
        self.path = path
        lines = text.utf8.count { $0 == UInt8(ascii: "\n") }
        code = SourceCode(text)
    }
}

/// A rule broken at a place.
struct Violation: Equatable, CustomStringConvertible {
    let place: String
    let reason: String

    var description: String { "\(place): \(reason)" }
}

/// Who may import, link and say what. docs/ARCHITECTURE.md has the reasons.
struct ImportRules {
    let manifest: Manifest
    let files: [SourceFile]

    /// Modules that come with the toolchain and need no declaration. Full Foundation, Glibc and Dispatch are not among them.
    static let toolchain: Set = ["Swift", "Synchronization", "FoundationEssentials"]

    /// What these import, and nothing else: formats and decisions without I/O.
    static let pure: [String: Set<String>] = [
        "Wire": ["CChecksum"],
        "Checkpoint": ["Wire"],
        "Handover": ["Wire"],
        "Control": ["FoundationEssentials", "Synchronization"],
    ]

    /// What these neither import nor reach through others.
    static let apart: [String: Set<String>] = [
        "Supervisor": ["Checkpoint", "Devices", "GuestMemory", "KVM", "VMM"],
        "SupervisorProgram": ["Checkpoint", "Devices", "GuestMemory", "KVM", "VMM"],
        "Devices": ["KVM", "VFIO"],
        "VMM": ["Control", "Keeper", "Privilege", "Supervisor"],
        "CommandLineTool": ["KVM", "VFIO", "GuestMemory", "Devices", "VMM", "Supervisor", "Keeper", "Privilege"],
    ]

    /// What these programs do not link, themselves or through others. `NIO` stands for every module that begins so.
    static let unlinked: [String: Set<String>] = [
        "baton-keep": ["ArgumentParser", "Control", "Crypto", "Foundation", "FoundationEssentials", "Logging", "NIO", "Supervisor", "Yams"],
        "batond": ["Foundation", "NIO", "Yams"],
        "baton-vmm": ["ArgumentParser", "Crypto", "Foundation", "FoundationEssentials", "NIO", "Yams"],
    ]

    /// The targets that may say `unsafe`.
    static let kernelFacing: Set = ["GuestMemory", "KVM", "LinuxSystem", "Privilege", "VFIO"]
    /// The targets that may call C. `VMM` calls plain functions of `CLinux` that confine its process, `Wire` one instruction.
    static let callers: [String: Set<String>] = [
        "CLinux": kernelFacing.union(["VMM"]), "Clibcap": ["Privilege"], "CChecksum": ["Wire"], "CImageStamp": ["baton-vmm-faulty"],
    ]

    /// A program's main file has fewer lines than this.
    static let mainLimit = 60

    /// Every import is declared as a direct dependency, and none is forbidden.
    var brokenImports: [Violation] {
        files.flatMap { file in
            file.code.imports.compactMap { found in
                reason(against: found.module, in: file.target).map { Violation(place: "\(file.path):\(found.line)", reason: $0) }
            }
        }
    }

    private func reason(against module: String, in target: String) -> String? {
        if module == target { return nil }
        if module == "Foundation" { return "\(target) imports Foundation; FoundationEssentials has to do" }
        if let only = Self.pure[target], !only.contains(module) { return "\(target) is pure and does not import \(module)" }
        if Self.apart[target]?.contains(module) ?? false { return "\(target) must not import \(module)" }
        if let callers = Self.callers[module], !callers.contains(target) { return "\(target) must not call C: \(module)" }
        guard !Self.toolchain.contains(module) else { return nil }
        guard let declared = manifest[target]?.dependencies else { return "\(target) is not declared in Package.swift" }
        return declared.contains(module) ? nil : "\(target) imports \(module), which Package.swift does not declare as its dependency"
    }

    /// What a target reaches through others counts as well: SwiftPM would let it be imported.
    var brokenReach: [Violation] {
        let apart = Self.apart.merging(Self.unlinked) { $0.union($1) }
        return apart.sorted { $0.key < $1.key }.flatMap { target, forbidden -> [Violation] in
            guard manifest[target] != nil else { return [Violation(place: "Package.swift", reason: "\(target) is not declared")] }
            let reached = manifest.closure(of: target)
            let imported = files.filter { reached.contains($0.target) }.flatMap { $0.code.imports.map(\.module) }
            return reached.union(imported).filter { module in forbidden.contains { $0 == "NIO" ? module.hasPrefix($0) : module == $0 } }.sorted()
                .map { Violation(place: "Package.swift", reason: "\(target) must not reach \($0)") }
        }
    }

    /// `unsafe` is said only where the kernel is spoken to.
    var brokenSafety: [Violation] {
        files.filter { !Self.kernelFacing.contains($0.target) }.flatMap { file in
            file.code.unsafeLines.map { Violation(place: "\(file.path):\($0)", reason: "\(file.target) must not say unsafe") }
        }
    }

    /// Programs parse arguments, build the object graph and run.
    var longMains: [Violation] {
        files.filter { manifest[$0.target]?.kind == .program && $0.path.hasSuffix("/main.swift") }.compactMap { file in
            file.lines < Self.mainLimit
                ? nil : Violation(place: file.path, reason: "\(file.lines) lines; a main file has fewer than \(Self.mainLimit)")
        }
    }
}
