import ControlTestSupport
import Foundation
import Testing

@Suite("Independent varlink client")
struct IndependentClientTests {
    private static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

    /// Runs a program to its end: status, and what it wrote to standard output.
    private func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = pipe
        try process.run()
        let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    private func python() throws -> String {
        let (status, output) = try run(Self.tests.appending(path: "varlink-python.sh").path, [])
        guard status == 0 else { try Test.cancel("no Python with the varlink package, and none could be installed") }
        return output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    @Test("PyPI's varlink understands the interface, the list, a typed error, and follows an upgrade to its end")
    func client() throws {
        let served = try ServedSocket()
        let script = Self.tests.appending(path: "varlink-client.py").path
        let (status, output) = try run(
            try python(), [script, served.path, "web1", "/usr/lib/baton/images/baton-vmm-0.2.0"])
        #expect(status == 0)
        let lines = output.split(separator: "\n")
        #expect(lines.first?.contains("GetInfo") == true)
        #expect(lines.filter { $0.contains(#""call": "Upgrade""#) }.count == StubData.steps("web1").count + 1)
    }
}
