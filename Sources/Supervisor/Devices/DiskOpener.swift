internal import Control
internal import LinuxSystem
internal import SystemPackage

/// Which machine of this host has a file open as a disk, if one has, and whether it may write.
typealias DiskUser = (FileIdentity) -> (machine: String, writes: Bool)?

/// Who of this host has what a machine can have for itself only.
struct HostUsers {
    let disk: DiskUser
    let device: DeviceUser
}

/// Opens what is behind disks, below the configured directories, and locks it.
struct DiskOpener {
    let machine: String
    /// Disks must lie below one of these.
    let directories: [String]
    let user: DiskUser

    /// A disk, open and locked: for writing, or for reading if it is `readOnly`. The lock belongs to what is returned and lives as long.
    func open(_ disk: DiskSpec, key: String) throws(ControlError) -> SharedDescriptor {
        let key = key + ".path"
        let (base, relative, followsLinks) = try place(of: disk.path, key)
        do {
            let directory = try OwnedDescriptor.open(base, .directory, followingLinks: true)
            let seen = try OwnedDescriptor.open(relative, beneath: directory, .path, followingLinks: followsLinks).identity()
            guard seen.kind != .other else { throw ControlError.invalidSpec(key: key, reason: "\(disk.path) is neither a file nor a block device") }
            if let other = user(seen), other.writes || !disk.readOnly { throw inUse(disk, by: "machine \(other.machine)", other.writes) }
            let file = try OwnedDescriptor.open(
                relative, beneath: directory, disk.readOnly ? .read : .readWriteExclusively, followingLinks: followsLinks)
            guard try file.identity() == seen else { throw ControlError.refused(machine: machine, reasons: ["\(disk.path) was replaced just now"]) }
            let size = try file.capacity()
            guard size > 0, size.isMultiple(of: 512) else {
                throw ControlError.invalidSpec(key: key, reason: "\(disk.path) has \(size) bytes, which is not a whole number of 512-byte sectors")
            }
            try lock(file, disk)
            return SharedDescriptor(file)
        } catch let error as Errno {
            throw refusal(error, disk, key)
        } catch {
            throw error as? ControlError ?? .failed(reason: "\(error)")
        }
    }

    /// The directory that `path` must stay below, the path from there, and whether symbolic links count.
    ///
    /// Links below `/dev` are made by the host's own device manager and are what disks are known by, so they are followed there.
    private func place(of path: String, _ key: String) throws(ControlError) -> (base: String, relative: String, followsLinks: Bool) {
        func below(_ directory: String) -> String? {
            let prefix = directory.hasSuffix("/") ? directory : directory + "/"
            return path.hasPrefix(prefix) && path.count > prefix.count ? String(path.dropFirst(prefix.count)) : nil
        }
        guard !path.split(separator: "/").contains(".."), let directory = directories.first(where: { below($0) != nil }) else {
            throw .invalidSpec(key: key, reason: "\(path) is not below an allowed directory (\(directories.joined(separator: ", ")))")
        }
        if let device = below("/dev") { return ("/dev", device, true) }
        return (directory, below(directory) ?? path, false)
    }

    private func lock(_ file: borrowing OwnedDescriptor, _ disk: DiskSpec) throws(ControlError) {
        do throws(LockRefusal) {
            try file.lock(forWriting: !disk.readOnly)
        } catch {
            switch error {
            case .held(let process): throw inUse(disk, by: process.map { "process \($0)" } ?? "another program", true)
            case .system(let errno): throw .failed(reason: "\(disk.path) cannot be locked: \(errno)")
            }
        }
    }

    private func inUse(_ disk: DiskSpec, by whom: String, _ writes: Bool) -> ControlError {
        let advice = disk.readOnly ? "only disks that nobody writes are shared" : "only disks that are read-only everywhere are shared"
        return .refused(
            machine: machine,
            reasons: [
                "disk \(disk.path): \(whom) has it open for \(writes ? "writing" : "reading") and has locked it",
                "→ stop that one, or use another disk; \(advice)",
            ])
    }

    private func refusal(_ errno: Errno, _ disk: DiskSpec, _ key: String) -> ControlError {
        switch errno {
        case .tooManySymbolicLinkLevels: .invalidSpec(key: key, reason: "there is a symbolic link in \(disk.path); name the file itself")
        case .improperLink: .invalidSpec(key: key, reason: "\(disk.path) leads out of the directory it is in")
        case .resourceBusy:
            .refused(
                machine: machine,
                reasons: [
                    "disk \(disk.path): it is mounted, or somebody has it for himself",
                    "→ unmount it, or make the disk read-only in the machine file",
                ])
        case .permissionDenied, .readOnlyFileSystem, .notPermitted:
            .invalidSpec(
                key: key,
                reason: "\(disk.path) cannot be opened for \(disk.readOnly ? "reading" : "writing") by user \(CurrentProcess.userID): \(errno)")
        default: .invalidSpec(key: key, reason: "\(disk.path): \(errno)")
        }
    }
}
