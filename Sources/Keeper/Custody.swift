package import LinuxSystem
internal import Wire

/// What is in custody: slots that are listed by number, and for each machine the few that are its own.
package struct Custody {
    /// As many as baton-keep may have descriptors, where it can raise that limit: about 4,000 machines.
    static let capacity = 65536

    private struct Entry {
        let key: CustodyKey
        let descriptor: SharedDescriptor
    }
    private var slots: [Entry?] = []
    private var free: [Int] = []
    /// The slots of each machine.
    private var machines: [String: [Int]] = [:]
    private(set) var count = 0

    package init() {}

    /// Does what one message asks for. Returns the answer and the descriptors that go with it; they stay in custody.
    package mutating func answer(_ message: [UInt8], length: Int, _ descriptors: [SharedDescriptor]) -> (answer: [UInt8], lent: [CInt]) {
        var reader = WireReader(message, range: 0..<length)
        var lent: [CInt] = []
        var reply = KeeperReply.done
        do throws(KeeperRefusal) {
            guard let request = try? KeeperRequest(from: &reader) else { throw .malformed }
            switch request {
            case .put(let key):
                guard descriptors.count == 1 else { throw .noDescriptor }
                try put(key, descriptors[0])
            case .get(let key): lent = [try get(key).number]
            case .drop(let key): try drop(key)
            case .list(let after): reply = entry(from: Int(after)).map { .entry($0.key, slot: UInt32($0.slot)) } ?? .end
            }
        } catch {
            reply = .refused(error)
        }
        var writer = WireWriter(capacity: KeeperRequest.maximumLength)
        reply.encode(to: &writer)
        return (writer.bytes, lent)
    }

    /// Takes a descriptor in. A key is held once; what it stands for never changes under it.
    mutating func put(_ key: CustodyKey, _ descriptor: SharedDescriptor) throws(KeeperRefusal) {
        if index(of: key) != nil { throw .occupied }
        if count == Self.capacity { throw .full }
        let entry = Entry(key: key, descriptor: descriptor)
        let slot = free.popLast() ?? slots.count
        if slot < slots.count { slots[slot] = entry } else { slots.append(entry) }
        machines[key.machine, default: []].append(slot)
        count += 1
    }

    func get(_ key: CustodyKey) throws(KeeperRefusal) -> SharedDescriptor {
        guard let index = index(of: key), let entry = slots[index] else { throw .absent }
        return entry.descriptor
    }

    mutating func drop(_ key: CustodyKey) throws(KeeperRefusal) {
        guard let index = index(of: key) else { throw .absent }
        slots[index] = nil
        free.append(index)
        machines[key.machine]?.removeAll { $0 == index }
        if machines[key.machine]?.isEmpty ?? false { machines[key.machine] = nil }
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
        machines[key.machine]?.first { slots[$0]?.key == key }
    }
}
