internal import LinuxSystem

/// What is in custody: a table of fixed size, so that holding one thing more cannot fail for want of memory elsewhere.
struct Custody {
    static let capacity = 8192

    private struct Entry {
        let key: CustodyKey
        let descriptor: SharedDescriptor
    }
    private var slots: [Entry?] = .init(repeating: nil, count: Self.capacity)
    private(set) var count = 0

    /// Takes a descriptor in. A key is held once; what it stands for never changes under it.
    mutating func put(_ key: CustodyKey, _ descriptor: SharedDescriptor) throws(KeeperRefusal) {
        if index(of: key) != nil { throw .occupied }
        guard let free = slots.firstIndex(where: { $0 == nil }) else { throw .full }
        slots[free] = Entry(key: key, descriptor: descriptor)
        count += 1
    }

    func get(_ key: CustodyKey) throws(KeeperRefusal) -> SharedDescriptor {
        guard let index = index(of: key), let entry = slots[index] else { throw .absent }
        return entry.descriptor
    }

    mutating func drop(_ key: CustodyKey) throws(KeeperRefusal) {
        guard let index = index(of: key) else { throw .absent }
        slots[index] = nil
        count -= 1
    }

    /// The first entry in a slot of at least `slot`.
    func entry(from slot: Int) -> (slot: Int, key: CustodyKey)? {
        guard slot < slots.count else { return nil }
        for index in slot..<slots.count {
            if let entry = slots[index] { return (index, entry.key) }
        }
        return nil
    }

    private func index(of key: CustodyKey) -> Int? {
        slots.firstIndex { $0?.key == key }
    }
}
