internal import Control
internal import LinuxSystem

/// The CPUs of this host that can be used now.
enum HostCPUs {
    /// Refuses an affinity that names a CPU this host does not have, or has switched off.
    static func require(_ affinity: [[Int]]?) throws(ControlError) {
        guard let affinity, let bytes = try? OwnedDescriptor.open("/sys/devices/system/cpu/online").read(upTo: 4096) else { return }
        let text = String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        let ranges = parse(text)
        for (index, cpus) in affinity.enumerated() {
            if let absent = cpus.first(where: { cpu in !ranges.contains { $0.contains(cpu) } }) {
                throw .invalidSpec(key: "vcpu-affinity[\(index)]", reason: "this host has no CPU \(absent); it has \(text)")
            }
        }
    }

    /// The ranges of `0-3,8,10-11` (Documentation/admin-guide/cputopology.rst).
    static func parse(_ text: String) -> [ClosedRange<Int>] {
        text.split(separator: ",").compactMap { part in
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, first <= last else { return nil }
            return first...last
        }
    }
}
