import Handover
import LinuxSystem
import Testing

@testable import VMM

@Suite struct WorkerImageTests {
    @Test func itDescribesItselfAsOneJSONObject() {
        let text = WorkerImage(version: "1.2.3 \"q\"").describe()
        #expect(text.hasPrefix("{\"program\":\"baton-vmm\",\"version\":\"1.2.3 \\\"q\\\"\",\"protocol\":1,\"models\":[\"baton-1\"]"))
        #expect(text.contains("{\"name\":\"cpu\",\"writes\":[1,1],\"reads\":[1,1]}"))
        #expect(text.hasSuffix("]}"))
    }

    @Test func itWritesEverySectionAtTheVersionPromisedOrNotAtAll() throws {
        let image = WorkerImage(version: "1")
        var promised = image.sections.map { SectionVersion(name: $0.name, version: $0.writes.upperBound) }
        #expect(try PromisedVersions(promised, image: image)["serial"] == 2)
        promised.removeLast()
        #expect(throws: VMMError.self) { try PromisedVersions(promised, image: image) }
        promised.append(SectionVersion(name: image.sections.last?.name ?? "", version: 99))
        #expect(throws: VMMError.self) { try PromisedVersions(promised, image: image) }
    }

    @Test(arguments: [
        (["--describe"], WorkerArguments.describe), (["--version"], .version), (["--help"], .help),
        (["--session", "5", "--machine", "web1", "--generation", "7"], .serve(session: 5, generation: 7)),
        (["--generation", "1"], .serve(session: 3, generation: 1)),
    ])
    func itTakesTheseArguments(arguments: [String], meaning: WorkerArguments) {
        #expect(WorkerArguments(["baton-vmm"] + arguments) == meaning)
    }

    @Test(arguments: [[], ["--generation"], ["--generation", "-1"], ["--session", "70000", "--generation", "1"], ["--frobnicate"], ["x"]])
    func itRefusesThese(arguments: [String]) {
        guard case .wrong = WorkerArguments(["baton-vmm"] + arguments) else {
            Issue.record("\(arguments) were taken")
            return
        }
    }

    @Test func theCommitWordChangesAsItIsAllowedTo() throws {
        let memory = try MemoryDescriptor(name: "word", size: 4096)
        let word = try SharedMapping(of: memory.descriptor, length: 4096).word(at: 0)
        let first = Commitment(word, generation: 1)
        let second = Commitment(word, generation: 2)
        #expect(first.current == nil)
        #expect(first.freeze() == nil && !first.thaw() && !first.takeOver())
        #expect(first.powerOn() && first.powerOn())
        #expect(!second.powerOn() && second.freeze() == nil && !second.takeOver())
        #expect(first.freeze() == false && first.thaw() && first.freeze() == false)
        #expect(word.exchange(expected: CommitWord(.frozen, 1).rawValue, desired: CommitWord(.committed, 2).rawValue).exchanged)
        #expect(!first.thaw())
        #expect(second.takeOver() && !second.takeOver())
        #expect(second.current == CommitWord(.running, 2))
    }
}
