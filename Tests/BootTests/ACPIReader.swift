/// Reads ACPI tables and the part of AML that is common in them, from the specification and without any of the code under test.
struct ACPIReader {
    struct Fault: Error, CustomStringConvertible { let description: String }

    private let bytes: [UInt8]
    private let start: UInt64

    init(_ bytes: [UInt8], at start: UInt64) {
        self.bytes = bytes
        self.start = start
    }

    /// `count` bytes at a guest address.
    func read(_ address: UInt64, _ count: Int) throws -> [UInt8] {
        guard address >= start, address - start + UInt64(count) <= UInt64(bytes.count) else {
            throw Fault(description: "\(count) bytes at \(address) are not in the tables")
        }
        return Array(bytes[Int(address - start)..<Int(address - start) + count])
    }

    /// The tables that RSDP and XSDT name, by signature, headers included, and those that the FADT names.
    func tables() throws -> [String: [UInt8]] {
        let pointer = try read(start, 36)
        guard pointer.prefix(8).elementsEqual("RSD PTR ".utf8), sum(pointer[..<20]) == 0, sum(pointer) == 0, pointer[15] == 2 else {
            throw Fault(description: "no RSDP")
        }
        let list = try table(pointer.integer(at: 24, 8))
        guard list.name == "XSDT", (list.bytes.count - 36) % 8 == 0 else { throw Fault(description: "no XSDT") }
        var found: [String: [UInt8]] = [:]
        for offset in stride(from: 36, to: list.bytes.count, by: 8) {
            let next = try table(list.bytes.integer(at: offset, 8))
            if found.updateValue(next.bytes, forKey: next.name) != nil { throw Fault(description: "two of \(next.name)") }
        }
        guard let fixed = found["FACP"] else { throw Fault(description: "no FADT") }
        guard fixed.integer(at: 40, 4) == fixed.integer(at: 140, 8) else { throw Fault(description: "two addresses of the DSDT") }
        let definitions = try table(fixed.integer(at: 140, 8))
        found[definitions.name] = definitions.bytes
        let facs = fixed.integer(at: 36, 4)
        guard facs % 64 == 0 else { throw Fault(description: "the FACS is not aligned") }
        found["FACS"] = try read(facs, 64)
        return found
    }

    private func table(_ address: UInt64) throws -> (name: String, bytes: [UInt8]) {
        let header = try read(address, 36)
        let whole = try read(address, Int(header.integer(at: 4, 4)))
        let name = String(decoding: header[..<4], as: UTF8.self)
        if sum(whole) != 0 { throw Fault(description: "the checksum of \(name) is wrong") }
        return (name, whole)
    }

    private func sum(_ bytes: some Sequence<UInt8>) -> UInt8 { bytes.reduce(0, &+) }
}

extension [UInt8] {
    func integer(at offset: Int, _ width: Int) -> UInt64 { (0..<width).reduce(0) { $0 | UInt64(self[offset + $1]) << UInt64(8 * $1) } }
}

/// A value of AML.
indirect enum AMLValue: Equatable {
    case integer(UInt64)
    case text(String)
    case buffer([UInt8])
    case package([AMLValue])
}

/// The namespace that a definition block makes: data objects and the bodies of methods, by their whole paths.
struct AMLNamespace {
    private(set) var values: [String: AMLValue] = [:]
    private(set) var methods: [String: [UInt8]] = [:]
    private(set) var devices: [String] = []

    init(_ code: [UInt8]) throws {
        var at = 0
        try terms(code, &at, code.count, "")
    }

    private mutating func terms(_ code: [UInt8], _ at: inout Int, _ end: Int, _ scope: String) throws {
        while at < end {
            let opcode = code[at]
            at += 1
            switch opcode {
            case 0x10:
                let end = Self.length(code, &at)
                try terms(code, &at, end, Self.name(code, &at, scope))
            case 0x5B where code[at] == 0x82:
                at += 1
                let end = Self.length(code, &at)
                let path = Self.name(code, &at, scope)
                devices.append(path)
                try terms(code, &at, end, path)
            case 0x08:
                let path = Self.name(code, &at, scope)
                values[path] = try Self.value(code, &at)
            case 0x14:
                let end = Self.length(code, &at)
                methods[Self.name(code, &at, scope)] = Array(code[at..<end])
                at = end
            default: throw ACPIReader.Fault(description: "opcode \(opcode) at \(at - 1)")
            }
            guard at <= end else { throw ACPIReader.Fault(description: "a term ends beyond its scope at \(at)") }
        }
    }

    /// Where what a PkgLength measures ends.
    private static func length(_ code: [UInt8], _ at: inout Int) -> Int {
        let start = at
        let lead = Int(code[at])
        at += 1
        var length = lead >> 6 == 0 ? lead & 0x3F : lead & 0xF
        for index in 0..<lead >> 6 {
            length |= Int(code[at]) << (4 + 8 * index)
            at += 1
        }
        return start + length
    }

    private static func name(_ code: [UInt8], _ at: inout Int, _ scope: String) -> String {
        var path = scope
        if code[at] == UInt8(ascii: "\\") {
            path = ""
            at += 1
        }
        var segments = 1
        if code[at] == 0x2E { (segments, at) = (2, at + 1) }
        if code[at] == 0x2F { (segments, at) = (Int(code[at + 1]), at + 2) }
        for _ in 0..<segments {
            path += (path.isEmpty ? "" : ".") + String(decoding: code[at..<at + 4], as: UTF8.self)
            at += 4
        }
        return path
    }

    private static func value(_ code: [UInt8], _ at: inout Int) throws -> AMLValue {
        let opcode = code[at]
        at += 1
        func number(_ width: Int) -> AMLValue {
            defer { at += width }
            return .integer(code.integer(at: at, width))
        }
        switch opcode {
        case 0, 1: return .integer(UInt64(opcode))
        case 0x0A: return number(1)
        case 0x0B: return number(2)
        case 0x0C: return number(4)
        case 0x0E: return number(8)
        case 0x0D:
            guard let end = code[at...].firstIndex(of: 0) else { throw ACPIReader.Fault(description: "a string without end") }
            defer { at = end + 1 }
            return .text(String(decoding: code[at..<end], as: UTF8.self))
        case 0x11:
            let end = length(code, &at)
            guard case .integer(let size) = try value(code, &at), at + Int(size) == end else {
                throw ACPIReader.Fault(description: "a buffer of another size")
            }
            defer { at = end }
            return .buffer(Array(code[at..<end]))
        case 0x12:
            let end = length(code, &at)
            let count = code[at]
            at += 1
            let elements = try (0..<count).map { _ in try value(code, &at) }
            guard at == end else { throw ACPIReader.Fault(description: "a package of another size") }
            return .package(elements)
        default: throw ACPIReader.Fault(description: "data opcode \(opcode) at \(at - 1)")
        }
    }
}
