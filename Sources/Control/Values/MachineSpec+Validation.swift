extension MachineSpec {
    /// Most vCPUs a machine of model `baton-1` may have.
    package static let maximumVCPUs = 64
    /// Most guest memory, 4 TiB, and least, 2 MiB.
    package static let memoryBounds = (2 << 20)...(4 << 40)

    /// Refuses what no host could run. What *this* host cannot run is the supervisor's to say.
    package func validate() throws(ControlError) {
        try Self.validate(name: name)
        try require(1...Self.maximumVCPUs ~= vcpus, "vcpus", "\(vcpus) is not between 1 and \(Self.maximumVCPUs)")
        try require(
            Self.memoryBounds ~= memory.sizeBytes, "memory.size", "\(memory.sizeBytes) bytes are not between 2 MiB and 4 TiB")
        try require(
            memory.sizeBytes.isMultiple(of: memory.pages.sizeBytes), "memory.size",
            "\(memory.sizeBytes) bytes are not a whole number of \(memory.pages.rawValue) pages")
        try validatePath(boot.kernel, "boot.kernel")
        try validatePath(boot.initrd, "boot.initrd")
        try validatePath(image, "image")
        try validateSocket(console?.socket, "console.socket")
        try validateDevices()
        try validateAffinity()
        let cmdline = boot.cmdline ?? ""
        try require(cmdline.utf8.count <= 2047, "boot.cmdline", "it is longer than 2047 bytes")
        try require(!cmdline.utf8.contains(0), "boot.cmdline", "it contains a NUL")
        try require(
            1...60_000_000_000 ~= upgrade.blackoutBudgetNanoseconds, "upgrade.blackout-budget", "it is not between 1 ns and 60 s")
        try require(1...60_000_000_000 ~= upgrade.ioHoldBudget, "upgrade.io-hold-budget", "it is not between 1 ns and 60 s")
        try require(0...86_400_000 ~= upgrade.soak.durationMilliseconds, "upgrade.soak.duration", "it is not between 0 and 24 h")
    }

    /// Names become names of directories and threads, so they are short and plain.
    package static func validate(name: String) throws(ControlError) {
        let plain = name.utf8.allSatisfy {
            switch $0 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
                UInt8(ascii: "."):
                true
            default: false
            }
        }
        guard plain, 1...63 ~= name.utf8.count, let first = name.first, first.isLetter || first.isNumber else {
            throw .invalidSpec(
                key: "name",
                reason: "a name has 1 to 63 lower-case letters, digits, \"-\", \"_\" or \".\", and begins with a letter or digit")
        }
    }

    func require(_ condition: Bool, _ key: String, _ reason: String) throws(ControlError) {
        guard condition else { throw .invalidSpec(key: key, reason: reason) }
    }

    func validatePath(_ path: String?, _ key: String) throws(ControlError) {
        guard let path else { return }
        try require(path.hasPrefix("/"), key, "\"\(path)\" is not an absolute path")
        try require(path.utf8.count < 4096 && !path.utf8.contains(0), key, "it is not a path")
    }
}
