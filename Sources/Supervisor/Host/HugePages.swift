internal import Control
internal import LinuxSystem

/// The host's reserve of huge pages (Documentation/admin-guide/mm/hugetlbpage.rst).
enum HugePages {
    /// How many pages of that kind are free; `nil` for pages that need no reserve.
    static func free(_ kind: PageKind) -> Int? {
        switch kind {
        case .small, .transparentHuge: nil
        case .huge2MiB, .huge1GiB: number(in: "/sys/kernel/mm/hugepages/hugepages-\(kind.sizeBytes >> 10)kB/free_hugepages") ?? 0
        }
    }

    /// Refuses memory that the reserve does not have: mapping it would fail later, without saying why.
    static func require(_ memory: MemorySpec) throws(ControlError) {
        guard let free = free(memory.pages) else { return }
        let needed = memory.sizeBytes / memory.pages.sizeBytes
        if free < needed {
            throw .unavailable(
                feature: "memory.pages: \(memory.pages.rawValue)",
                reason: "\(needed) such pages are needed and \(free) are free; reserve more (vm.nr_hugepages) or use 4KiB or thp")
        }
    }

    private static func number(in path: String) -> Int? {
        guard let bytes = try? OwnedDescriptor.open(path).read(upTo: 32) else { return nil }
        return Int(String(decoding: bytes.prefix { $0 >= 48 && $0 <= 57 }, as: UTF8.self))
    }
}
