internal import Yams

/// Reads the keys of one mapping, and knows which are allowed and where each stands.
struct MappingReader {
    /// The file's name as it was given, for messages.
    let file: String
    /// Dotted path of the mapping; empty at the top.
    let path: String
    private let mark: Mark?
    private let entries: [String: (key: Node, value: Node)]

    /// Refuses what is no mapping, keys that are no plain text, and keys that are not `allowed`.
    init(_ node: Node, file: String, path: String, allowed: [String]) throws(MachineFileFault) {
        self.file = file
        self.path = path
        mark = node.mark
        guard case .mapping(let mapping) = node else {
            let expected = allowed.isEmpty ? "{} is expected" : "keys are expected: \(allowed.listed)"
            throw Self.fault(file, node.mark, path.isEmpty ? nil : path, "\(node.kind) where \(expected)")
        }
        var entries: [String: (key: Node, value: Node)] = [:]
        for (key, value) in mapping {
            guard let name = key.scalar?.string else { throw Self.fault(file, key.mark, path.isEmpty ? nil : path, "a key must be a word") }
            guard allowed.contains(name) else {
                let hint = Suggestion.nearest(to: name, among: allowed).map { "; did you mean \($0)?" } ?? ""
                let place = path.isEmpty ? "" : "\(path): "
                let list = allowed.isEmpty ? "none" : allowed.listed
                throw Self.fault(file, key.mark, nil, "\(place)unknown key \"\(name.shortened)\"\(hint) Allowed: \(list)".punctuated)
            }
            entries[name] = (key, value)
        }
        self.entries = entries
    }

    func dotted(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    func node(_ key: String) -> Node? { entries[key]?.value }

    func required(_ key: String, _ what: String) throws(MachineFileFault) -> Node {
        if let node = node(key) { return node }
        throw Self.fault(file, mark, dotted(key), "missing: \(what)")
    }

    func fault(_ key: String, _ message: String) -> MachineFileFault {
        Self.fault(file, entries[key]?.value.mark ?? mark, dotted(key), message)
    }

    static func fault(_ file: String, _ mark: Mark?, _ key: String?, _ message: String) -> MachineFileFault {
        MachineFileFault(file: file, line: mark?.line, column: mark?.column, key: key, message: message)
    }
}

// Values.
extension MappingReader {
    /// Text, quoted or not.
    func text(_ key: String) throws(MachineFileFault) -> String? {
        guard let node = node(key) else { return nil }
        guard let scalar = node.scalar else { throw fault(key, "\(node.kind) where text is expected") }
        guard !node.isNull, !scalar.string.isEmpty else { throw fault(key, "empty; give it a value or leave the key out") }
        return scalar.string
    }

    func integer(_ key: String, _ what: String) throws(MachineFileFault) -> Int? {
        guard let text = try plain(key, what) else { return nil }
        guard let value = Int(text) else { throw fault(key, "\"\(text.shortened)\" is not \(what)") }
        return value
    }

    func flag(_ key: String) throws(MachineFileFault) -> Bool? {
        guard let text = try plain(key, "true or false") else { return nil }
        switch text {
        case "true": return true
        case "false": return false
        default: throw fault(key, "\"\(text.shortened)\" is neither true nor false")
        }
    }

    func bytes(_ key: String) throws(MachineFileFault) -> Int? {
        guard let text = try text(key) else { return nil }
        if let bytes = Units.bytes(text) { return bytes }
        throw fault(key, "\"\(text.shortened)\" is not a size; write a whole number and B, KiB, MiB, GiB or TiB, as in 8GiB")
    }

    func nanoseconds(_ key: String) throws(MachineFileFault) -> Int? {
        guard let text = try text(key) else { return nil }
        if let nanoseconds = Units.nanoseconds(text) { return nanoseconds }
        throw fault(key, "\"\(text.shortened)\" is not a duration; write a whole number and ns, us, ms, s, min or h, as in 50ms")
    }

    /// One of a fixed set of words.
    func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, of type: Choice.Type, not what: String
    ) throws(MachineFileFault) -> Choice? where Choice.RawValue == String {
        guard let text = try text(key) else { return nil }
        if let choice = Choice(rawValue: text) { return choice }
        throw fault(key, "\"\(text.shortened)\" is not \(what); use \(Choice.allCases.map(\.rawValue).alternatives)")
    }

    /// The mapping at `key`, for reading further.
    func mapping(_ key: String, allowed: [String]) throws(MachineFileFault) -> MappingReader? {
        guard let node = node(key) else { return nil }
        return try MappingReader(node, file: file, path: dotted(key), allowed: allowed)
    }

    /// The entries of the list at `key`.
    func sequence(_ key: String) throws(MachineFileFault) -> [Node]? {
        guard let node = node(key) else { return nil }
        guard case .sequence(let entries) = node else { throw fault(key, "not a list; each entry begins with \"- \"") }
        return Array(entries)
    }

    private func plain(_ key: String, _ what: String) throws(MachineFileFault) -> String? {
        guard let text = try text(key) else { return nil }
        guard node(key)?.scalar?.style == .plain else { throw fault(key, "\"\(text.shortened)\" is text, not \(what); write it without quotes") }
        return text
    }
}

extension Node {
    /// What people call this kind of node.
    fileprivate var kind: String {
        switch self {
        case .scalar: isNull ? "nothing" : "a single value"
        case .mapping: "a list of keys"
        case .sequence: "a list"
        case .alias: "an alias"
        }
    }

    fileprivate var isNull: Bool {
        guard let scalar else { return false }
        return scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    }
}

extension String {
    /// Text of a stranger, fit for a message.
    var shortened: String { count > 60 ? prefix(60) + "…" : self }

    /// A full stop where a sentence ended without one.
    fileprivate var punctuated: String { replacing("\" Allowed", with: "\". Allowed") }
}

extension [String] {
    fileprivate var listed: String { joined(separator: ", ") }

    /// `4KiB, thp, 2MiB or 1GiB`.
    fileprivate var alternatives: String {
        count < 2 ? listed : Array(dropLast()).listed + " or " + (last ?? "")
    }
}
