package import LinuxSystem

/// Where text for people goes: a terminal, a file, or a test.
package protocol TextStream: AnyObject, Sendable {
    func write(_ text: String)
    /// A person is watching: lines may be redrawn.
    var isTerminal: Bool { get }
    /// Columns to fill.
    var columns: Int { get }
}

/// Standard output or error.
package final class StandardTextStream: TextStream {
    private let stream: StandardStream

    package init(_ stream: StandardStream) { self.stream = stream }

    // A reader that has gone away is told by the signal it causes, not here.
    package func write(_ text: String) { try? stream.write(Array(text.utf8)) }
    package var isTerminal: Bool { stream.isTerminal }
    package var columns: Int { stream.width ?? 100 }
}

/// Colours, where they are wanted.
package struct Style: Sendable {
    private let isOn: Bool

    /// Colours belong on terminals, and not where `NO_COLOR` is set (no-color.org).
    package init(for stream: any TextStream, environment: [String: String]) {
        isOn = stream.isTerminal && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }

    private func wrap(_ text: String, _ code: Int) -> String { isOn ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }

    func bold(_ text: String) -> String { wrap(text, 1) }
    func dim(_ text: String) -> String { wrap(text, 2) }
    func red(_ text: String) -> String { wrap(text, 31) }
    func green(_ text: String) -> String { wrap(text, 32) }
    func yellow(_ text: String) -> String { wrap(text, 33) }
    func cyan(_ text: String) -> String { wrap(text, 36) }
}
