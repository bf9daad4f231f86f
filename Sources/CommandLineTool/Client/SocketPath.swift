/// Where the supervisor listens.
enum SocketPath {
    static let variable = "BATON_SOCKET"
    private static let name = "io.baton.Supervisor"

    /// The sockets to try, in order: only the one that was named, or the places where a supervisor puts it by itself.
    static func candidates(named path: String?, environment: [String: String]) -> [String] {
        if let path { return [path] }
        if let path = environment[variable], !path.isEmpty { return [path] }
        var paths = ["/run/baton/\(name)"]
        if let directory = environment["XDG_RUNTIME_DIR"], !directory.isEmpty { paths.append("\(directory)/baton/\(name)") }
        return paths
    }
}
