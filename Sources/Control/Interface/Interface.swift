/// A varlink interface as a value: rendered for introspection, and what calls are checked against.
package struct Interface: Sendable {
    package let name: String
    package let documentation: String
    package let types: [NamedType]
    package let methods: [Method]
    package let errors: [ErrorDeclaration]

    /// A field of a record, with what its type does not say: the unit, the meaning of its absence.
    package struct Field: Sendable {
        package let name: String
        package let type: FieldType
        package let documentation: String?

        package init(_ name: String, _ type: FieldType, _ documentation: String? = nil) {
            self.name = name
            self.type = type
            self.documentation = documentation
        }
    }

    /// The types of varlink that this project uses.
    package indirect enum FieldType: Sendable {
        case bool
        case int
        case string
        case optional(FieldType)
        case list(FieldType)
        case named(String)
    }

    package enum Definition: Sendable {
        case record([Field])
        /// One of these strings.
        case choice([String])
    }

    package struct NamedType: Sendable {
        package let name: String
        package let documentation: String
        package let definition: Definition
    }

    package struct Method: Sendable {
        package let name: String
        package let documentation: String
        package let parameters: [Field]
        package let result: [Field]
    }

    package struct ErrorDeclaration: Sendable {
        package let name: String
        package let documentation: String
        package let parameters: [Field]
    }

    package func method(named name: String) -> Method? { methods.first { $0.name == name } }
}

// The checks.
extension Interface {
    /// Path of the first member of `value` that is missing, unknown or of another type than `fields` declare; `nil` when all is well.
    package func firstMismatch(of value: JSONValue, with fields: [Field], at path: String = "") -> String? {
        guard case .object(let members) = value else { return path.isEmpty ? "parameters" : path }
        let prefix = path.isEmpty ? "" : path + "."
        let known = Set(fields.map(\.name))
        if let unknown = members.keys.filter({ !known.contains($0) }).min() { return prefix + unknown }
        for field in fields {
            if let path = firstMismatch(of: members[field.name] ?? .null, with: field.type, at: prefix + field.name) { return path }
        }
        return nil
    }

    private func firstMismatch(of value: JSONValue, with type: FieldType, at path: String) -> String? {
        switch (type, value) {
        case (.bool, .bool), (.int, .integer), (.string, .string), (.optional, .null): return nil
        case (.optional(let inner), _): return firstMismatch(of: value, with: inner, at: path)
        case (.list(let inner), .array(let elements)):
            for (index, element) in elements.enumerated() {
                if let path = firstMismatch(of: element, with: inner, at: "\(path)[\(index)]") { return path }
            }
            return nil
        case (.named(let name), _): return firstMismatch(of: value, with: types.first { $0.name == name }?.definition, at: path)
        case (.bool, _), (.int, _), (.string, _), (.list, _): return path
        }
    }

    private func firstMismatch(of value: JSONValue, with definition: Definition?, at path: String) -> String? {
        switch definition {
        case .record(let fields): firstMismatch(of: value, with: fields, at: path)
        case .choice(let names): value.text.map(names.contains) == true ? nil : path
        case nil: path
        }
    }
}

// The text.
extension Interface {
    /// The interface in varlink's own language, as `GetInterfaceDescription` gives it.
    package var text: String {
        var blocks = ["\(Self.comment(documentation))interface \(name)"]
        blocks += types.map { "\(Self.comment($0.documentation))type \($0.name) \(Self.render($0.definition))" }
        blocks += methods.map {
            "\(Self.comment($0.documentation))method \($0.name)\(Self.render($0.parameters)) -> \(Self.render($0.result))"
        }
        blocks += errors.map { "\(Self.comment($0.documentation))error \($0.name) \(Self.render($0.parameters))" }
        return blocks.joined(separator: "\n\n") + "\n"
    }

    private static func comment(_ text: String, indent: String = "") -> String {
        text.split(separator: "\n").map { "\(indent)# \($0)\n" }.joined()
    }

    private static func render(_ definition: Definition) -> String {
        switch definition {
        case .record(let fields): render(fields)
        case .choice(let names): "(\(names.joined(separator: ", ")))"
        }
    }

    private static func render(_ fields: [Field]) -> String {
        let parts = fields.map { "\($0.name): \(render($0.type))" }
        if fields.allSatisfy({ $0.documentation == nil }), parts.joined(separator: ", ").count < 90 {
            return "(\(parts.joined(separator: ", ")))"
        }
        let lines = zip(fields, parts).map { field, part in comment(field.documentation ?? "", indent: "  ") + "  " + part }
        return "(\n\(lines.joined(separator: ",\n"))\n)"
    }

    private static func render(_ type: FieldType) -> String {
        switch type {
        case .bool: "bool"
        case .int: "int"
        case .string: "string"
        case .optional(let inner): "?" + render(inner)
        case .list(let inner): "[]" + render(inner)
        case .named(let name): name
        }
    }
}
