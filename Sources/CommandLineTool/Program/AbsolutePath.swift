internal import SystemPackage

enum AbsolutePath {
    /// `path` seen from `directory`, with `.` and `..` worked out by name. Symbolic links stay what they are.
    static func of(_ path: String, in directory: String) -> String {
        FilePath(directory).pushing(FilePath(path)).lexicallyNormalized().string
    }
}
