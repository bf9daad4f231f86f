import LinuxSystem
import SystemPackage
import Testing

/// ACPICA's `iasl`, from Debian's acpica-tools.
enum Disassembler {
    static let isThere = FileSystem.exists("/usr/bin/iasl")

    /// Disassembles a table and compiles the result: another compiler's idea of the same definitions. Warnings count as errors.
    static func roundTrip(_ table: [UInt8]) throws -> [UInt8] {
        let input = SharedDescriptor(try MemoryDescriptor(name: "table", size: 0).takeDescriptor())
        try input.descriptor.writeAll(table)
        let output = SharedDescriptor(try MemoryDescriptor(name: "again", size: 0).takeDescriptor())
        let messages = SharedDescriptor(try MemoryDescriptor(name: "messages", size: 0).takeDescriptor())
        let script = """
            set -e; work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
            cat /proc/self/fd/0 >table.aml
            iasl -d table.aml >&2 && rm table.aml && iasl -we -p table table.dsl >&2 && cat table.aml
            """
        var request = SpawnRequest(arguments: ["sh", "-c", script], descriptors: [input, output, messages])
        request.environment = ["PATH=/usr/bin:/bin"]
        let spawned = try request.spawn(executing: try OwnedDescriptor.open("/bin/sh", followingLinks: true))
        let process = spawned.takeProcess()
        let ended = process.waitForEnd(timeout: .seconds(30))
        let said = String(decoding: try messages.descriptor.read(upTo: 64 << 10, at: 0), as: UTF8.self)
        #expect(ended && process.reap() == .exited(0), "\(said)")
        return try output.descriptor.read(upTo: 1 << 20, at: 0)
    }
}
