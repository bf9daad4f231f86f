/// What an operator asks for: one machine. Paths are absolute; the command line makes them so.
package struct MachineSpec: Codable, Sendable, Equatable {
    /// Lower-case letters, digits, `-`, `_` and `.`; at most 63 characters, the first a letter or digit.
    package var name: String
    package var vcpus: Int
    /// The host's CPUs each vCPU may run on, one list for each; no restriction when absent.
    package var vcpuAffinity: [[Int]]?
    package var memory: MemorySpec
    package var boot: BootSpec
    package var console: ConsoleSpec?
    /// The worker image to start with; the supervisor's default when absent.
    package var image: String?
    /// None when absent.
    package var devices: [DeviceSpec]?
    package var onCrash: CrashPolicy
    package var upgrade: UpgradePolicy

    package init(
        name: String, vcpus: Int, memory: MemorySpec, boot: BootSpec, console: ConsoleSpec? = nil, image: String? = nil,
        devices: [DeviceSpec]? = nil, vcpuAffinity: [[Int]]? = nil, onCrash: CrashPolicy = .stop, upgrade: UpgradePolicy = UpgradePolicy()
    ) {
        self.name = name
        self.vcpus = vcpus
        self.memory = memory
        self.boot = boot
        self.console = console
        self.image = image
        self.devices = devices
        self.vcpuAffinity = vcpuAffinity
        self.onCrash = onCrash
        self.upgrade = upgrade
    }
}

/// Guest memory.
package struct MemorySpec: Codable, Sendable, Equatable {
    /// A whole number of pages.
    package var sizeBytes: Int
    package var pages: PageKind
    /// Every page is allocated before the guest starts.
    package var prefault: Bool

    package init(sizeBytes: Int, pages: PageKind = .small, prefault: Bool = false) {
        self.sizeBytes = sizeBytes
        self.pages = pages
        self.prefault = prefault
    }
}

/// What guest memory is made of.
package enum PageKind: String, Codable, Sendable, CaseIterable {
    case small = "4KiB"
    /// 4 KiB pages that the kernel may join.
    case transparentHuge = "thp"
    case huge2MiB = "2MiB"
    case huge1GiB = "1GiB"

    /// What the size must be a multiple of.
    package var sizeBytes: Int {
        switch self {
        case .small, .transparentHuge: 4096
        case .huge2MiB: 2 << 20
        case .huge1GiB: 1 << 30
        }
    }
}

/// What the guest starts from: a bzImage or an ELF image with a PVH entry.
package struct BootSpec: Codable, Sendable, Equatable {
    package var kernel: String
    package var initrd: String?
    package var cmdline: String?

    package init(kernel: String, initrd: String? = nil, cmdline: String? = nil) {
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
    }
}

/// A place besides the control interface where the guest's console can be reached.
package struct ConsoleSpec: Codable, Sendable, Equatable {
    /// A stream socket the supervisor listens on.
    package var socket: String?

    package init(socket: String? = nil) { self.socket = socket }
}

/// What happens to a machine whose worker died and left no state.
package enum CrashPolicy: String, Codable, Sendable, CaseIterable {
    /// It starts again from its boot section.
    case reset
    case stop
}

/// How a machine is upgraded.
package struct UpgradePolicy: Codable, Sendable, Equatable {
    /// A handover that would stop the guest for longer is aborted.
    package var blackoutBudgetNanoseconds: Int
    /// A handover whose disks do not come to rest within it is aborted; ``defaultIOHoldBudgetNanoseconds`` when absent.
    package var ioHoldBudgetNanoseconds: Int?
    package var soak: SoakPolicy
    /// The machine is refused at `Run` when something in it could not be handed over.
    package var onlyUpgradable: Bool

    /// 50 ms.
    package static let defaultBlackoutBudgetNanoseconds = 50_000_000
    /// 2 s: longer than a busy disk takes, shorter than a guest's patience with one.
    package static let defaultIOHoldBudgetNanoseconds = 2_000_000_000

    package var ioHoldBudget: Int { ioHoldBudgetNanoseconds ?? Self.defaultIOHoldBudgetNanoseconds }

    package init(
        blackoutBudgetNanoseconds: Int = UpgradePolicy.defaultBlackoutBudgetNanoseconds, ioHoldBudgetNanoseconds: Int? = nil,
        soak: SoakPolicy = SoakPolicy(), onlyUpgradable: Bool = false
    ) {
        self.blackoutBudgetNanoseconds = blackoutBudgetNanoseconds
        self.ioHoldBudgetNanoseconds = ioHoldBudgetNanoseconds
        self.soak = soak
        self.onlyUpgradable = onlyUpgradable
    }
}

/// How long health is watched after commit, and what bad health leads to.
package struct SoakPolicy: Codable, Sendable, Equatable {
    package var durationMilliseconds: Int
    package var onFailure: FailurePolicy

    package enum FailurePolicy: String, Codable, Sendable, CaseIterable {
        /// Back to the previous image.
        case revert
        case keep
    }

    /// 30 s.
    package static let defaultDurationMilliseconds = 30_000

    package init(durationMilliseconds: Int = SoakPolicy.defaultDurationMilliseconds, onFailure: FailurePolicy = .revert) {
        self.durationMilliseconds = durationMilliseconds
        self.onFailure = onFailure
    }
}
