/// What Package.swift declares: every target with its direct dependencies, packages' products under their own names.
struct Manifest {
    enum Kind { case module, program, tests, foreign }

    struct Target: Equatable {
        let name: String
        let kind: Kind
        let dependencies: [String]
        /// Where its files are said to lie; `nil`: in the folder of its name.
        let path: String?
    }

    let targets: [Target]

    /// Understands the forms in use: `module("A", ["B", product])`, `program`, `tests`, `.target(name:)`, `.executableTarget(name:)`,
    /// `.testTarget(name:)`, `.systemLibrary(name:)`, and `let product = Target.Dependency.product(name: "P", package: …)`.
    init(_ text: String) {
        let code = text.split(separator: "\n", omittingEmptySubsequences: false).map(Self.withoutComment).joined(separator: "\n")
        let products = Self.products(in: code)
        var targets: [Target] = []
        for (call, kind, label) in Self.calls {
            for arguments in Self.arguments(of: call, in: code) {
                guard let name = Self.quoted(arguments) else { continue }
                let list = label.isEmpty ? Self.list(after: "\"\(name)\"", in: arguments) : Self.list(after: label, in: arguments)
                let path = arguments.firstRange(of: "path:").flatMap { Self.quoted(arguments[$0.upperBound...]) }
                targets.append(Target(name: name, kind: kind, dependencies: Self.names(in: list, products), path: path))
            }
        }
        self.targets = targets
    }

    subscript(name: String) -> Target? { targets.first { $0.name == name } }

    /// `name` and everything it depends on, directly or through others.
    func closure(of name: String) -> Set<String> {
        var reached: Set<String> = []
        var open = [name]
        while let next = open.popLast() {
            guard reached.insert(next).inserted else { continue }
            open += self[next]?.dependencies ?? []
        }
        return reached
    }

    private static let calls: [(call: String, kind: Kind, label: String)] = [
        (" module(", .module, ""), (" program(", .program, ""), (" tests(", .tests, ""),
        (".target(", .module, "dependencies:"), (".executableTarget(", .program, "dependencies:"), (".testTarget(", .tests, "dependencies:"),
        (".systemLibrary(", .foreign, "dependencies:"),
    ]

    private static func withoutComment(_ line: Substring) -> Substring {
        line.drop { $0 == " " }.hasPrefix("//") ? "" : line
    }

    private static func products(in code: String) -> [String: String] {
        var products: [String: String] = [:]
        for line in code.split(separator: "\n") where line.hasPrefix("let ") && line.contains(".product(") {
            let identifier = line.dropFirst(4).prefix { $0 != " " && $0 != ":" }
            products[String(identifier)] = quoted(line)
        }
        return products
    }

    /// The text between the parentheses of every call of `name`.
    private static func arguments(of name: String, in code: String) -> [Substring] {
        var found: [Substring] = []
        var rest = code[...]
        while let call = rest.firstRange(of: name) {
            let body = balanced(code[call.upperBound...], open: "(", close: ")")
            found.append(body)
            rest = code[call.upperBound...]
        }
        return found
    }

    /// What stands before the bracket that closes the one before `text`.
    private static func balanced(_ text: Substring, open: Character, close: Character) -> Substring {
        var depth = 1
        for index in text.indices {
            if text[index] == open { depth += 1 }
            if text[index] == close { depth -= 1 }
            if depth == 0 { return text[..<index] }
        }
        return text
    }

    /// The list behind `label`; empty when there is none.
    private static func list(after label: String, in arguments: Substring) -> Substring {
        guard let found = arguments.firstRange(of: label) else { return "" }
        let rest = arguments[found.upperBound...].drop { $0 == " " || $0 == "," || $0 == "\n" }
        return rest.first == "[" ? balanced(rest.dropFirst(), open: "[", close: "]") : ""
    }

    /// The elements of a list: names in quotes, and the products that identifiers stand for.
    private static func names(in list: Substring, _ products: [String: String]) -> [String] {
        list.split { $0 == "," || $0 == " " || $0 == "\n" }.map { element in quoted(element) ?? products[String(element)] ?? String(element) }
    }

    /// The first text in quotes.
    private static func quoted(_ text: Substring) -> String? {
        let parts = text.split(separator: "\"", maxSplits: 2, omittingEmptySubsequences: false)
        return parts.count == 3 ? String(parts[1]) : nil
    }
}
