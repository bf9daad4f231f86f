@testable import CommandLineTool
import Control
import Testing

@Suite("Documentation")
struct DocumentationTests {
    @Test("the interface in docs is the interface that is served")
    func interface() throws {
        let path = Fixtures.repository + "/docs/io.baton.Supervisor.varlink"
        if Transcript.regenerates { try Fixtures.write(Interface.supervisor.text, to: path) }
        #expect(try Fixtures.read(path) == Interface.supervisor.text)
    }

    @Test("the machine file in docs is one, and every key that is allowed has its row")
    func machineFile() throws {
        let text = try Fixtures.read(Fixtures.repository + "/docs/machine-file.md")
        let example = try #require(text.split(separator: "```yaml\n").last?.split(separator: "\n```").first)
        let spec = try MachineFile.read(String(example), name: "machine-file.md", directory: "/srv/guests")
        #expect(spec.name == "web1" && spec.boot.initrd == "/srv/guests/initrd.img")
        for key in MachineFile.Keys.all { #expect(text.contains("| `\(key)` |"), "\(key) has no row") }
    }

    @Test("a completion script is generated for each shell, and asks the supervisor for names", arguments: ["bash", "zsh", "fish"])
    func completion(shell: String) {
        let stream = CapturedStream(isTerminal: false)
        let context = Context(
            environment: [:], output: stream, errors: stream, workingDirectory: "/", now: { 0 }, clock: { 0 })
        #expect(Program.run(["--generate-completion-script", shell], in: context) == .done)
        #expect(stream.text.contains("baton list --names") && stream.text.contains("rollback"))
    }
}
