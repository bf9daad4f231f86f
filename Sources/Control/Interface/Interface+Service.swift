extension Interface {
    /// What every varlink service offers (varlink.org, "Service Interface").
    package static let service = Interface(
        name: "org.varlink.service",
        documentation: "Says what a varlink service offers.",
        types: [],
        methods: [
            Method(
                name: "GetInfo", documentation: "Who answers, and which interfaces it has.", parameters: [],
                result: [
                    Field("vendor", .string), Field("product", .string), Field("version", .string), Field("url", .string),
                    Field("interfaces", .list(.string)),
                ]),
            Method(
                name: "GetInterfaceDescription", documentation: "The text of one interface.", parameters: [Field("interface", .string)],
                result: [Field("description", .string)]),
        ],
        errors: [
            ErrorDeclaration(
                name: "InterfaceNotFound", documentation: "There is no such interface.", parameters: [Field("interface", .string)]),
            ErrorDeclaration(
                name: "MethodNotFound", documentation: "The interface has no such method.", parameters: [Field("method", .string)]),
            ErrorDeclaration(
                name: "MethodNotImplemented", documentation: "The method is declared and not offered here.",
                parameters: [Field("method", .string)]),
            ErrorDeclaration(
                name: "InvalidParameter", documentation: "A parameter is missing, unknown or of the wrong type.",
                parameters: [Field("parameter", .string)]),
            ErrorDeclaration(
                name: "ExpectedMore", documentation: "The method answers more than once; call it with `more`.", parameters: []),
        ])
}
