internal import Control
internal import LinuxSystem
internal import SystemPackage

/// Looks at what this host gives, and says what is missing and what that means.
struct Doctor {
    let host: Host

    func examine() -> [Check] {
        [kvm, privileges, memoryLock, openFiles, imageDirectories, diskDirectories, tun, hugePages] + PassthroughDoctor(host: host).examine()
    }

    private var kvm: Check {
        do {
            _ = try OwnedDescriptor.open("/dev/kvm", .readWrite)
            return Check(name: "/dev/kvm", verdict: .ok, detail: "can be opened for machines")
        } catch {
            return Check(
                name: "/dev/kvm", verdict: .missing,
                detail: "\(error): no machine can run; load kvm_intel or kvm_amd, or give this user the right to it")
        }
    }

    private var privileges: Check {
        if let base = host.users.base {
            return Check(name: "worker users", verdict: .ok, detail: "two for each machine, from \(base)")
        }
        return Check(
            name: "worker users", verdict: .warning,
            detail:
                "started without privileges: workers run as this user, nothing keeps one machine's worker from another's; only taps and VFIO groups of this user"
        )
    }

    private var memoryLock: Check {
        let limit = CurrentProcess.memoryLockLimit
        if limit == .max { return Check(name: "memlock", verdict: .ok, detail: "unlimited") }
        let text = "\(limit >> 20) MiB"
        return host.raisesLimits
            ? Check(name: "memlock", verdict: .ok, detail: "\(text); workers get their machine's memory and 64 MiB")
            : Check(name: "memlock", verdict: .warning, detail: "\(text): machines with passed-through devices need their memory and 64 MiB")
    }

    private var openFiles: Check {
        let limit = CurrentProcess.openFileLimit
        return Check(
            name: "open files", verdict: limit >= 4096 ? .ok : .warning,
            detail: limit >= 4096 ? "\(limit)" : "\(limit): about \(limit / 12) machines; raise RLIMIT_NOFILE of baton-keep")
    }

    private var imageDirectories: Check {
        let missing = host.configuration.imageDirectories.filter { !FileSystem.exists($0) }
        return Check(
            name: "image directories", verdict: missing.isEmpty ? .ok : .warning,
            detail: missing.isEmpty ? host.configuration.imageDirectories.joined(separator: ", ") : "missing: \(missing.joined(separator: ", "))")
    }

    private var diskDirectories: Check {
        let directories = host.configuration.diskDirectories
        let missing = directories.filter { !FileSystem.exists($0) }
        return Check(
            name: "disk directories", verdict: missing.count == directories.count ? .warning : .ok,
            detail: missing.isEmpty
                ? directories.joined(separator: ", ")
                : "missing: \(missing.joined(separator: ", ")); machines with disks below it are refused: make it, or name others with --disk-directory"
        )
    }

    private var tun: Check {
        do {
            _ = try OwnedDescriptor.open("/dev/net/tun", .readWriteNow)
            return Check(name: "/dev/net/tun", verdict: .ok, detail: "can be opened for network interfaces; the taps are yours to make")
        } catch {
            return Check(
                name: "/dev/net/tun", verdict: .warning,
                detail: "\(error): machines with network interfaces are refused; load the module tun, or give this user the right to it")
        }
    }

    private var hugePages: Check {
        let free = HugePages.free(.huge2MiB) ?? 0
        return free > 0
            ? Check(name: "hugepages", verdict: .ok, detail: "\(free) free 2 MiB pages")
            : Check(name: "hugepages", verdict: .warning, detail: "0 free 2 MiB pages; machines asking for pages: 2MiB will be refused")
    }
}
