import LinuxSystem
import Synchronization
import SystemPackage
import Testing

/// Starting processes, whatever else this one has open.
@Suite struct SpawnTests {
    private func memory(_ text: String = "") throws -> SharedDescriptor {
        let memory = SharedDescriptor(try MemoryDescriptor(name: "text", size: 0).takeDescriptor())
        try memory.descriptor.writeAll(Array(text.utf8))
        return memory
    }

    private func text(_ memory: SharedDescriptor) throws -> String {
        String(decoding: try memory.descriptor.read(upTo: 1 << 16, at: 0), as: UTF8.self)
    }

    /// Runs a line of shell to its end.
    private func shell(_ line: String, _ descriptors: [SharedDescriptor]) throws {
        var request = SpawnRequest(arguments: ["sh", "-c", line], descriptors: descriptors)
        request.environment = ["PATH=/usr/bin:/bin"]
        let process = try request.spawn(executing: try OwnedDescriptor.open("/bin/sh", followingLinks: true)).takeProcess()
        #expect(process.waitForEnd(timeout: .seconds(30)) && process.reap() == .exited(0))
    }

    @Test("has the descriptors it was given, by their places, and no other")
    func descriptors() throws {
        let crowd = try (0..<500).map { _ in try EventDescriptor.shared() }
        let output = try memory()
        // Not in the order of their numbers, and one of them twice.
        let second = try memory("second"), first = try memory("first")
        try shell("ls -x /proc/$$/fd >&1; cat /proc/$$/fd/0 /proc/$$/fd/3 /proc/$$/fd/4 >&1", [first, output, output, second, first])
        #expect(try text(output).split(separator: "\n").map { $0.split(separator: " ") } == [["0", "1", "2", "3", "4"], ["firstsecondfirst"]])
        withExtendedLifetime(crowd) {}
    }

    @Test("is given what is its own when several start at once")
    func several() throws {
        let said = Mutex<[Int: String]>([:])
        let threads = try (0..<24).map { number in
            try SystemThread(name: "starts") { [self] in
                guard let input = try? memory("child \(number)"), let output = try? memory() else { return }
                try? shell("cat /proc/$$/fd/0 >&1", [input, output, output])
                said.withLock { $0[number] = try? text(output) }
            }
        }
        for thread in threads { thread.join() }
        #expect(said.withLock { $0 } == Dictionary(uniqueKeysWithValues: (0..<24).map { ($0, "child \($0)") }))
    }

    @Test("is the only one that has them: their other ends see when it has ended")
    func ends() throws {
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", .readWrite))
        let near: UnixSocket
        do {
            let pair = try UnixSocket.sequencedPair()
            let far = pair.far
            near = pair.takeNear()
            try shell("exit 0", [null, null, null, far])
        }
        #expect(try Poll.one(near.descriptor.number, timeout: .zero))
    }
}
