package import Control
internal import FoundationEssentials
internal import LinuxSystem
internal import Synchronization
package import SystemPackage
internal import Wire

/// A machine's journal: append-only lines `CRC JSON` in its run directory.
///
/// The checksum is CRC-32C over the JSON. A torn last line, left by a process that was killed or a file system that was full, is dropped. Whoever writes
/// after it says so first, with a line of its own, so that the torn line can be told from damage; any other bad line is an error.
/// Nothing is fsynced: a crash of the host ends the machines anyway.
package final class Journal: Sendable {
    private struct State {
        let encoder = JSONEncoder()
        /// The file ends in the middle of a line.
        var isTorn: Bool
    }
    private let file: OwnedDescriptor
    private let state: Mutex<State>

    /// What stands on the line after a torn one.
    private static let tornMark = UInt8(ascii: "!")

    /// Longest journal that is read back.
    static let sizeLimit = 64 << 20

    package init(path: String) throws(Errno) {
        file = try OwnedDescriptor.open(path, .append, permissions: 0o600)
        let size = try file.size()
        let last = size > 0 ? try OwnedDescriptor.open(path).read(upTo: 1, at: size - 1) : []
        state = Mutex(State(isTorn: !last.isEmpty && last != [UInt8(ascii: "\n")]))
    }

    package func append(_ record: JournalRecord) throws(Errno) {
        try state.withLock { state throws(Errno) in
            state.encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            let json = (try? state.encoder.encode(record)).map(Array.init) ?? []
            var line = state.isTorn ? [UInt8(ascii: "\n"), Self.tornMark, UInt8(ascii: "\n")] : []
            line += Array(Self.hexadecimal(CRC32C.of(json)).utf8)
            line.append(UInt8(ascii: " "))
            line += json
            line.append(UInt8(ascii: "\n"))
            // One write of one line with O_APPEND: whole or torn, never mixed. A full file system takes a part of it.
            var rest = line[...]
            while !rest.isEmpty {
                rest = rest.dropFirst(try file.write(rest.span))
                state.isTorn = !rest.isEmpty
            }
        }
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
            if line.elementsEqual([tornMark]) { continue }
            let json = Array(line.dropFirst(9))
            guard line.dropFirst(8).first == UInt8(ascii: " "), String(decoding: line.prefix(8), as: UTF8.self) == hexadecimal(CRC32C.of(json)),
                let record = try? decoder.decode(JournalRecord.self, from: Data(json))
            else {
                if lines[index + 1].elementsEqual([tornMark]) { continue }
                throw Damage(path: path, line: index + 1)
            }
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
