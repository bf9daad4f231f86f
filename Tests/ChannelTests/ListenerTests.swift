import Foundation
import LinuxSystem
import Synchronization
import SystemPackage
import Testing

@Suite struct ListenerTests {
    /// The umask belongs to the whole process: who changed it for a socket changed it for every file that another thread, or a child, made meanwhile.
    @Test func aSocketHasItsModeAndTheProcessKeepsItsUmask() throws {
        let name = "/tmp/baton-test-\(UInt64.random(in: 0 ... .max))"
        let umasks = Mutex<Set<String>>([])
        let isOver = Atomic(false)
        let watcher = try SystemThread(name: "umask") {
            while !isOver.load(ordering: .relaxed) {
                let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
                let line = status.split(separator: "\n").first { $0.hasPrefix("Umask:") }
                umasks.withLock { _ = $0.insert(line.map(String.init) ?? "none") }
            }
        }
        for number in 0..<500 {
            let mode: UInt32 = number % 2 == 0 ? 0o666 : 0o600
            let path = "\(name)-\(number).socket"  // one name each: a child that another test starts may hold the last listener a while longer
            defer { try? FileSystem.remove(path) }
            let listener = try UnixListener(path: path, permissions: mode)
            let found = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? NSNumber
            #expect(found?.uint32Value == mode)
            _ = listener.takeDescriptor()
        }
        isOver.store(true, ordering: .relaxed)
        watcher.join()
        #expect(umasks.withLock { $0.count } == 1, "\(umasks.withLock { $0 })")
    }
}
