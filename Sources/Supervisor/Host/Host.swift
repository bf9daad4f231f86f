internal import Control
package import Handover
package import Keeper
internal import LinuxSystem
internal import Synchronization
package import SystemPackage

/// How this supervisor is set up. Times are generous: they bound what a broken worker costs, not what a good one needs.
package struct Configuration: Sendable {
    /// Where journals, logs and the socket live: tmpfs, gone with the host.
    package var runDirectory: String
    package var socketPath: String
    /// Worker images must lie below one of these.
    package var imageDirectories: [String]
    /// Kernels and initial RAM disks must lie below one of these.
    package var fileDirectories: [String]
    /// Disks must lie below one of these.
    package var diskDirectories: [String]
    /// What a machine starts with that names no image.
    package var defaultImage: String?
    /// First of the users set aside for workers, when privileged.
    package var workerUserBase: UInt32
    /// For each answer while the guest runs, but for `prepare`.
    package var answerDeadline: Duration = .seconds(5)
    /// For `prepare`, plus one second for each GiB of guest memory.
    package var prepareDeadline: Duration = .seconds(10)
    /// Between two health checks while soaking, and for the answer to one.
    package var healthInterval: Duration = .milliseconds(200)
    package var healthDeadline: Duration = .milliseconds(500)

    package init(
        runDirectory: String, socketPath: String, imageDirectories: [String], fileDirectories: [String] = ["/"], diskDirectories: [String] = [],
        workerUserBase: UInt32 = 600_000
    ) {
        self.runDirectory = runDirectory
        self.socketPath = socketPath
        self.imageDirectories = imageDirectories
        self.fileDirectories = fileDirectories
        self.diskDirectories = diskDirectories
        self.workerUserBase = workerUserBase
    }
}

/// A named step at which tests hold, delay or kill the supervisor. Shipped programs have none.
package typealias StepHook = @Sendable (Handover.Step) -> Void

/// What every machine of this host shares.
package final class Host: Sendable {
    package let configuration: Configuration
    package let custody: CustodyClient
    package let images: ImageStore
    package let users: WorkerUsers
    /// At most this many machines are in blackout at once.
    let admission: Admission
    /// At most this many workers build their machines at once: more would only take the CPUs from the machines in blackout.
    let preparations: Admission
    let events: EventLog
    let logs: WorkerLogs
    /// Whether limits can be raised above our own: each worker may then lock its machine's memory.
    let raisesLimits: Bool
    let hook: StepHook

    /// `changesUsers`, `raisesLimits`: what this process has the privileges for.
    package init(
        _ configuration: Configuration, custody: CustodyClient, changesUsers: Bool, raisesLimits: Bool, hook: @escaping StepHook = { _ in }
    ) throws(Errno) {
        self.configuration = configuration
        self.custody = custody
        self.raisesLimits = raisesLimits
        users = WorkerUsers(base: changesUsers ? configuration.workerUserBase : nil)
        images = ImageStore(directories: configuration.imageDirectories, custody: custody, users: users)
        admission = Admission(limit: max(1, SystemClock.processorCount / 2))
        preparations = Admission(limit: max(1, SystemClock.processorCount / 2))
        events = EventLog()
        logs = try WorkerLogs()
        self.hook = hook
    }

    func directory(of machine: String) -> String { "\(configuration.runDirectory)/machines/\(machine)" }
    func workerLog(of machine: String) -> String { directory(of: machine) + "/worker.log" }
    func journal(of machine: String) -> String { directory(of: machine) + "/journal" }

    /// Gives back everything of a machine that is off.
    func releaseCustody(of machine: String) {
        for key in (try? custody.keys(of: machine)) ?? [] { try? custody.drop(key) }
    }

    /// Opens a kernel or initial RAM disk below the configured directories, without following links.
    func openBootFile(_ path: String, key: String) throws(ControlError) -> SharedDescriptor {
        let allowed = configuration.fileDirectories.contains { path.hasPrefix($0.hasSuffix("/") ? $0 : $0 + "/") }
        guard allowed, !path.split(separator: "/").contains("..") else {
            throw .invalidSpec(
                key: key, reason: "\(path) is not below an allowed directory (\(configuration.fileDirectories.joined(separator: ", ")))")
        }
        do {
            let file = try OwnedDescriptor.open(path, .readNow)
            guard file.isRegularFile else { throw ControlError.invalidSpec(key: key, reason: "\(path) is not a file") }
            return SharedDescriptor(file)
        } catch Errno.tooManySymbolicLinkLevels {
            throw .invalidSpec(key: key, reason: "there is a symbolic link in \(path); name the file itself")
        } catch let error as Errno {
            throw .invalidSpec(key: key, reason: "\(path): \(error)")
        } catch {
            throw error as? ControlError ?? .failed(reason: "\(error)")
        }
    }
}

/// Lets a bounded number of machines do something at once: with more than the CPUs can serve, each would take longer.
final class Admission: Sendable {
    private let free: Mutex<Int>
    private let changes = Futex()

    init(limit: Int) { free = Mutex(limit) }

    /// Waits for a place, at most `limit`; whether there was one.
    func enter(within limit: Duration) -> Bool {
        let deadline = SystemClock.monotonic() + limit.nanoseconds
        while true {
            let seen = changes.value
            let entered = free.withLock { free in
                if free == 0 { return false }
                free -= 1
                return true
            }
            if entered { return true }
            let left = deadline - SystemClock.monotonic()
            if left <= 0 { return false }
            changes.wait(while: seen, timeout: .nanoseconds(left))
        }
    }

    func leave() {
        free.withLock { $0 += 1 }
        changes.set(changes.value &+ 1)
    }
}
