import Testing

/// The repository keeps its own rules.
@Suite struct ImportRuleTests {
    @Test func `every import is declared and allowed`() throws {
        let rules = try Checkout.rules()
        #expect(rules.files.count > 100)
        #expect(rules.brokenImports == [])
    }

    @Test func `nothing is reached through others that must stay apart`() throws {
        #expect(try Checkout.rules().brokenReach == [])
    }

    @Test func `unsafe is said only where the kernel is spoken to`() throws {
        #expect(try Checkout.rules().brokenSafety == [])
    }

    @Test func `main files are short`() throws {
        #expect(try Checkout.rules().longMains == [])
    }

    @Test func `every folder of Sources is a target, and every target has its folder`() throws {
        let rules = try Checkout.rules()
        let declared = Set(rules.manifest.targets.filter { $0.kind != .tests && $0.path == nil }.map(\.name))
        #expect(try Checkout.sourceFolders() == declared)
    }

    @Test func `every rule names targets that exist`() throws {
        let manifest = try Checkout.rules().manifest
        let named = ImportRules.kernelFacing.union(ImportRules.pure.keys).union(ImportRules.apart.keys).union(ImportRules.unlinked.keys)
        #expect(named.filter { manifest[$0] == nil } == [])
    }
}

/// What is shipped has no way to make it fail. Looks at built files, so that nothing has to be believed about the linker.
@Suite struct ShippedProgramTests {
    /// Texts that only `baton-vmm-faulty` may contain: long enough not to be folded into instructions.
    static func faultNames() throws -> [String] {
        let source = try Checkout.text("Sources/baton-vmm-faulty/Fault.swift")
        let texts: [Substring] = source.split(separator: "\"")
        return texts.filter { $0.count > 15 && $0.allSatisfy { ("a"..."z").contains($0) || $0 == "-" } }.map(String.init)
    }

    @Test(.enabled(if: Checkout.isBuilt("images", "baton-vmm") && Checkout.isBuilt("images", "baton-vmm-faulty"), "`make images` builds them"))
    func `the shipped worker has no failpoint names`() throws {
        let names = try Self.faultNames()
        #expect(names.count >= 5)
        #expect(try Checkout.texts(names, in: "images", "baton-vmm-faulty") == Set(names))
        #expect(try Checkout.texts(names, in: "images", "baton-vmm") == [])
    }

    @Test(.enabled(if: Checkout.isBuilt("images", "baton-vmm"), "`make images` builds it"))
    func `the worker links no Foundation`() throws {
        #expect(try Checkout.texts(["FoundationEssentials", "NSObject"], in: "images", "baton-vmm") == [])
    }
}
