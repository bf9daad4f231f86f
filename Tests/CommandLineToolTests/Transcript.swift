import CommandLineTool
import ControlTestSupport
import FoundationEssentials
import LinuxSystem
import Supervisor
import Synchronization

/// Commands with what they print, as a person would see it: kept as text, compared with what happens.
///
///     $ baton list
///     NAME …
///     (exit 0 is not shown)
///
/// A line that begins with `#` is a remark; `# terminal` makes the commands after it see a terminal of 100 columns.
struct Transcript {
    static let regenerates = ProcessInfo.processInfo.environment["BATON_REGENERATE"] != nil

    /// Runs every command of `text` and returns the text as it should be.
    ///
    /// `places`: sockets that stand in for the paths written in the text.
    static func replay(_ text: String, socket: String, places: [String: String] = [:]) -> String {
        var result = ""
        var isTerminal = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("# ") {
                isTerminal = line.hasPrefix("# terminal")
                result += "\(line)\n"
            } else if line.hasPrefix("$ baton ") || line == "$ baton" {
                if !result.isEmpty, !result.hasSuffix("\n\n"), !result.hasSuffix("#\n") { result += "\n" }
                result += "\(line)\n" + run(words(of: line).map { places[$0] ?? $0 }, socket: socket, isTerminal: isTerminal)
            }
        }
        return result
    }

    /// Words of a command line; double quotes keep blanks together.
    private static func words(of line: Substring) -> [String] {
        line.dropFirst("$ baton".count).split(separator: "\"", omittingEmptySubsequences: false).enumerated().flatMap { index, part in
            index.isMultiple(of: 2) ? part.split(separator: " ").map(String.init) : [String(part)]
        }
    }

    private static func run(_ arguments: [String], socket: String, isTerminal: Bool) -> String {
        let stream = CapturedStream(isTerminal: isTerminal)
        var context = Context(
            environment: ["BATON_SOCKET": socket, "TERM": "xterm"], output: stream, errors: stream, workingDirectory: Fixtures.directory,
            now: { StubService.now }, clock: { 0 })
        // Whoever follows this one loses patience at once.
        if arguments.contains(where: { $0.hasSuffix("/interrupted") }) { context.interrupt = { PressedKey() } }
        let status = Program.run(arguments, in: context)
        let exit = status == .done ? "" : "(exit \(status.rawValue))\n"
        return stream.text.replacing("\u{1B}", with: "␛").replacing("\r", with: "␍").replacing(Fixtures.directory, with: "/srv/machines") + exit
    }
}

/// Ctrl-C, pressed already.
final class PressedKey: Interrupt {
    private let event: EventDescriptor

    init?() {
        guard let event = try? EventDescriptor() else { return nil }
        event.signal()
        self.event = event
    }

    var number: CInt { event.descriptor.number }
    func take() {}
}

/// Output that stays here.
final class CapturedStream: TextStream {
    private let content = Mutex("")
    let isTerminal: Bool
    var columns: Int { 100 }
    var text: String { content.withLock { $0 } }

    init(isTerminal: Bool) { self.isTerminal = isTerminal }

    func write(_ text: String) { content.withLock { $0 += text } }
}

/// Files of this test target.
enum Fixtures {
    static let target = String(#filePath.prefix(upTo: #filePath.lastIndex(of: "/") ?? #filePath.endIndex))
    static let directory = target + "/Fixtures"
    static let golden = target + "/Golden"
    static let repository = String(target.dropLast("/Tests/CommandLineToolTests".count))

    static func read(_ path: String) throws -> String {
        String(decoding: try OwnedDescriptor.open(path, followingLinks: true).readAll(limit: 1 << 22), as: UTF8.self)
    }

    static func write(_ text: String, to path: String) throws {
        try OwnedDescriptor.open(path, .replace, permissions: 0o644, followingLinks: true).writeAll(Array(text.utf8))
    }
}
