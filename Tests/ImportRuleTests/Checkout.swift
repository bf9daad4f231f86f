import FoundationEssentials
import Glibc

/// The repository these tests were built from.
enum Checkout {
    static let root = environment["BATON_CHECKOUT"] ?? #filePath.split(separator: "/").dropLast(3).reduce(into: "") { $0 += "/" + $1 }
    private static let environment = ProcessInfo.processInfo.environment

    static func text(_ path: String) throws -> String {
        String(decoding: try Data(contentsOf: URL(filePath: "\(root)/\(path)")), as: UTF8.self)
    }

    /// Every Swift file under Sources.
    static func sources() throws -> [SourceFile] {
        let paths = try FileManager.default.subpathsOfDirectory(atPath: "\(root)/Sources").sorted()
        return try paths.filter { $0.hasSuffix(".swift") }.map { path in
            SourceFile(target: String(path.prefix { $0 != "/" }), path: "Sources/\(path)", text: try text("Sources/\(path)"))
        }
    }

    /// Read once.
    static func rules() throws -> ImportRules { try readRules.get() }
    private static let readRules = Result { ImportRules(manifest: Manifest(try text("Package.swift")), files: try sources()) }

    /// The names of the folders in Sources.
    static func sourceFolders() throws -> Set<String> {
        Set(try FileManager.default.contentsOfDirectory(atPath: "\(root)/Sources"))
    }

    /// Where what was built for use lies: `kind` is `images` or `bin`.
    static func built(_ kind: String, _ name: String) -> String {
        let variable = kind == "images" ? "BATON_IMAGES" : "BATON_BIN"
        return (environment[variable] ?? "\(root)/out/\(kind)") + "/" + name
    }

    static func isBuilt(_ kind: String, _ name: String) -> Bool { FileManager.default.fileExists(atPath: built(kind, name)) }

    /// Which of `texts` the built file contains.
    static func texts(_ texts: [String], in kind: String, _ name: String) throws -> Set<String> {
        let bytes = try Data(contentsOf: URL(filePath: built(kind, name)), options: .alwaysMapped)
        return Set(texts.filter { contains(bytes, Array($0.utf8)) })
    }

    private static func contains(_ bytes: Data, _ wanted: [UInt8]) -> Bool {
        // SAFETY: `found` and the `wanted.count` bytes behind it lie within `all`, which lives until the closure returns.
        unsafe bytes.withUnsafeBytes { all in
            var start = 0
            while let base = all.baseAddress, all.count - start >= wanted.count {
                guard let found = unsafe memchr(base + start, CInt(wanted[0]), all.count - start - wanted.count + 1) else { return false }
                if unsafe memcmp(found, wanted, wanted.count) == 0 { return true }
                start = unsafe base.distance(to: UnsafeRawPointer(found)) + 1
            }
            return false
        }
    }
}
