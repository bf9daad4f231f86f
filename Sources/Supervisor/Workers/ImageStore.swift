package import Control
internal import Crypto
internal import FoundationEssentials
internal import Keeper
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// Admits worker images and keeps them in custody under their digest.
package final class ImageStore: Sendable {
    private let directories: [String]
    private let custody: CustodyClient
    private let admitted = Mutex<[String: WorkerImage]>([:])
    /// The digests of files by how they were when they were read.
    private let read = Mutex<[FileStamp: String]>([:])
    private let identity: WorkerUsers

    /// Largest image that is copied.
    static let sizeLimit = 256 << 20
    /// Most files remembered.
    private static let mostRead = 256
    /// Longest description that is read.
    static let descriptionLimit = 64 << 10
    /// Longest that an image may take to describe itself, in nanoseconds. It takes milliseconds; a host whose CPUs are all taken makes seconds of them.
    private static let descriptionPatience: Int64 = 20_000_000_000

    /// `directories`: images must lie below one of these. `users`: who an image runs as when it is asked to describe itself.
    init(directories: [String], custody: CustodyClient, users: WorkerUsers) {
        self.directories = directories
        self.custody = custody
        identity = users
    }

    /// A file that was changed less long ago than this is read again: a change right after would look the same where clocks are coarse.
    private static let stillChanging: Int64 = 3_000_000_000

    /// Copies, seals, hashes and describes the image at `path`, or returns the one admitted before with the same bytes. A file that has not
    /// changed since it was read is not read again: what would be executed is the sealed copy in any case.
    package func admit(path: String) throws(ControlError) -> WorkerImage {
        let directory = directories.contains { path.hasPrefix($0.hasSuffix("/") ? $0 : $0 + "/") }
        guard directory, !path.split(separator: "/").contains("..") else {
            throw .imageNotAllowed(path: path, reason: "it is not below an allowed image directory (\(directories.joined(separator: ", ")))")
        }
        let source = try open(path)
        let before = try? source.stamp()
        if let before, let digest = read.withLock({ $0[before] }), let known = admitted.withLock({ $0[digest] }) { return known }
        SystemThread.setUrgent(false)
        defer { SystemThread.setUrgent(true) }
        let (file, digest) = try sealedCopy(of: source, path)
        if let before, before == (try? source.stamp()), SystemClock.wall() - before.changed > Self.stillChanging {
            read.withLock { read in
                if read.count >= Self.mostRead { read.removeAll() }
                read[before] = digest
            }
        }
        if let known = admitted.withLock({ $0[digest] }) { return known }
        let description = try describe(file, path: path, digest: digest)
        let image = WorkerImage(description: description, file: file)
        try retain(image)
        return image
    }

    /// Sees to it that an image about to be started is in custody.
    func retain(_ image: WorkerImage) throws(ControlError) {
        try admitted.withLock { images throws(ControlError) in
            do throws(CustodyError) {
                try custody.put(Self.key(image.description.digest), image.file)
            } catch .refused(.occupied, _) {
                // There already: the same bytes.
            } catch {
                throw .failed(reason: "\(image.description.path): \(error)")
            }
            images[image.description.digest] = image
        }
    }

    /// An image that an earlier supervisor process had deposited.
    func adopt(_ description: ImageDescription) throws(ControlError) -> WorkerImage {
        if let known = admitted.withLock({ $0[description.digest] }) { return known }
        do {
            let image = WorkerImage(description: description, file: try custody.get(Self.key(description.digest)))
            admitted.withLock { $0[description.digest] = image }
            return image
        } catch {
            throw .failed(reason: "image \(description.version): \(error)")
        }
    }

    /// Lets go of every image that is not among `digests`.
    func keepOnly(_ digests: Set<String>) {
        // Under the lock, as every put is: an image that is admitted again meanwhile must not lose its place in custody.
        admitted.withLock { images in
            for digest in images.keys.filter({ !digests.contains($0) }) {
                images[digest] = nil
                try? custody.drop(Self.key(digest))
            }
        }
    }

    private static func key(_ digest: String) -> CustodyKey { CustodyKey(machine: "", name: "image-" + digest.prefix(32)) }

    private func open(_ path: String) throws(ControlError) -> OwnedDescriptor {
        do {
            let source = try OwnedDescriptor.open(path, .readNow)
            guard source.isRegularFile else { throw ControlError.imageNotAllowed(path: path, reason: "it is not a file") }
            return source
        } catch let error as ControlError {
            throw error
        } catch Errno.tooManySymbolicLinkLevels {
            throw .imageNotAllowed(path: path, reason: "there is a symbolic link in its path; name the file itself")
        } catch {
            throw .imageNotAllowed(path: path, reason: "it cannot be opened: \(error)")
        }
    }

    private func sealedCopy(of source: borrowing OwnedDescriptor, _ path: String) throws(ControlError) -> (SharedDescriptor, digest: String) {
        do {
            let name = path.split(separator: "/").last.map(String.init) ?? "image"
            let copy = try MemoryDescriptor.sealedCopy(of: source, name: name, limit: Self.sizeLimit).takeDescriptor()
            var hash = SHA256()
            var offset = 0
            while true {
                let chunk = try copy.read(upTo: 1 << 20, at: offset)
                if chunk.isEmpty { break }
                hash.update(data: chunk)
                offset += chunk.count
            }
            if offset == 0 { throw ControlError.imageNotAllowed(path: path, reason: "it is empty") }
            let digest = hash.finalize().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
            return (SharedDescriptor(copy), digest)
        } catch let error as ControlError {
            throw error
        } catch {
            throw .imageNotAllowed(path: path, reason: "it cannot be copied: \(error)")
        }
    }

    /// Runs the image with `--describe`, without privileges, and reads what it prints.
    private func describe(_ file: SharedDescriptor, path: String, digest: String) throws(ControlError) -> ImageDescription {
        let text: [UInt8]
        let end: ProcessExit?
        do {
            (text, end) = try output(of: file, arguments: ["baton-vmm", "--describe"])
        } catch {
            throw .imageNotAllowed(path: path, reason: "it cannot be started: \(error)")
        }
        if text.count > Self.descriptionLimit {
            throw .imageNotAllowed(path: path, reason: "what it prints for --describe is longer than \(Self.descriptionLimit >> 10) KiB")
        }
        guard end == .exited(0) else {
            throw .imageNotAllowed(path: path, reason: "asked to describe itself, it \(end?.description ?? "did not end in time")")
        }
        guard let own = try? JSONDecoder().decode(OwnDescription.self, from: Data(text)) else {
            throw .imageNotAllowed(path: path, reason: "what it prints for --describe is not a description of a worker image")
        }
        return own.description(path: path, digest: digest)
    }

    private func output(of file: SharedDescriptor, arguments: [String]) throws(Errno) -> (text: [UInt8], end: ProcessExit?) {
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", .readWrite))
        let pair = try UnixSocket.streamPair()
        var request = SpawnRequest(arguments: arguments, descriptors: [null, pair.far, null])
        identity.restrict(&request, slot: WorkerUsers.slots, generation: 0)  // nobody's worker runs as this user
        let child = try request.spawn(executing: file.descriptor)
        request.descriptors = []
        let near = pair.takeNear()
        var text: [UInt8] = []
        let deadline = SystemClock.monotonic() + Self.descriptionPatience
        while text.count <= Self.descriptionLimit {
            let left = deadline - SystemClock.monotonic()
            // The child's end shows as a hang-up even while our own copy of its end is still open in `pair`.
            if child.process.hasEnded(), try !Poll.one(near.descriptor.number, timeout: .zero) { break }
            guard left > 0 else { break }
            if try Poll.one(near.descriptor.number, timeout: min(.nanoseconds(left), .milliseconds(20))) {
                let chunk = try near.descriptor.read(upTo: 4096)
                if chunk.isEmpty { break }
                text += chunk
            }
        }
        let left = text.count > Self.descriptionLimit ? 0 : max(0, deadline - SystemClock.monotonic())
        if !child.process.waitForEnd(timeout: .nanoseconds(left)) {
            try? child.process.send(.kill)
            _ = child.process.waitForEnd(timeout: .seconds(5))
            _ = child.process.reap()
            return (text, nil)
        }
        return (text, child.process.reap())
    }
}

/// What an image prints for `--describe`.
private struct OwnDescription: Decodable {
    struct Section: Decodable {
        let name: String
        let writes: [Int]
        let reads: [Int]
    }
    let version: String
    let models: [String]
    let sections: [Section]
    let features: [String]?
    let needs: [String]?

    func description(path: String, digest: String) -> ImageDescription {
        ImageDescription(
            path: path, version: version, digest: digest, models: models,
            sections: sections.map {
                .init(
                    name: $0.name, writes: .init(lowest: $0.writes.min() ?? 0, highest: $0.writes.max() ?? 0),
                    reads: .init(lowest: $0.reads.min() ?? 0, highest: $0.reads.max() ?? 0))
            }, features: features ?? [], needs: needs ?? [])
    }
}
