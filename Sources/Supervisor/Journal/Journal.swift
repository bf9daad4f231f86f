package import Control
internal import FoundationEssentials
internal import LinuxSystem
internal import Synchronization
package import SystemPackage
internal import Wire

/// A machine's journal: append-only lines `CRC JSON` in its run directory.
///
/// The checksum is CRC-32C over the JSON. A torn last line, left by a host that lost power, is dropped; any other damage is an error.
/// Nothing is fsynced: a crash of the host ends the machines anyway.
package final class Journal: Sendable {
    private let file: OwnedDescriptor
    private let encoder = Mutex(JSONEncoder())

    /// Longest journal that is read back.
    static let sizeLimit = 64 << 20

    package init(path: String) throws(Errno) {
        file = try OwnedDescriptor.open(path, .append, permissions: 0o600)
    }

    package func append(_ record: JournalRecord) throws(Errno) {
        let json = encoder.withLock { encoder -> [UInt8] in
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return (try? encoder.encode(record)).map(Array.init) ?? []
        }
        var line = Array(Self.hexadecimal(CRC32C.of(json)).utf8)
        line.append(UInt8(ascii: " "))
        line += json
        line.append(UInt8(ascii: "\n"))
        try file.writeAll(line)  // one write of one line with O_APPEND: whole or torn, never mixed
    }

    /// Why a journal cannot be trusted.
    package struct Damage: Error, CustomStringConvertible {
        package let path: String
        package let line: Int
        package var description: String { "\(path):\(line): the line does not match its checksum" }
    }

    /// Every record of the journal at `path`, oldest first.
    package static func read(path: String) throws -> [JournalRecord] {
        let bytes = try OwnedDescriptor.open(path).readAll(limit: sizeLimit)
        var records: [JournalRecord] = []
        let decoder = JSONDecoder()
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            if index == lines.count - 1 { break }  // what follows the last newline is empty or torn
            let json = Array(line.dropFirst(9))
            guard line.dropFirst(8).first == UInt8(ascii: " "), String(decoding: line.prefix(8), as: UTF8.self) == hexadecimal(CRC32C.of(json)),
                let record = try? decoder.decode(JournalRecord.self, from: Data(json))
            else { throw Damage(path: path, line: index + 1) }
            records.append(record)
        }
        return records
    }

    /// The handovers among `records`, oldest first, each as its soak left it.
    package static func handovers(_ records: [JournalRecord]) -> [HandoverRecord] {
        var handovers: [HandoverRecord] = []
        for record in records where record.kind == .handoverEnded || record.kind == .soakEnded {
            guard let handover = record.handover else { continue }
            if let index = handovers.lastIndex(where: { $0.startedAtNanoseconds == handover.startedAtNanoseconds }) {
                handovers[index] = handover
            } else {
                handovers.append(handover)
            }
        }
        return handovers
    }

    /// Eight lower-case hexadecimal digits.
    private static func hexadecimal(_ value: UInt32) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}
