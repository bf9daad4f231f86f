import LinuxSystem
import SystemPackage
import Testing

@testable import Keeper

@Suite struct CustodyTests {
    private func memory() throws -> SharedDescriptor {
        SharedDescriptor(try MemoryDescriptor(name: "test", size: 4096).takeDescriptor())
    }

    @Test func whatIsPutCanBeHadAgainAndAgain() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        let memory = try memory()
        try custody.put(key, memory)
        for _ in 0..<2 { #expect(try custody.get(key) === memory) }
        #expect(custody.count == 1)
    }

    @Test func aKeyIsHeldOnce() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        try custody.put(key, try memory())
        #expect(throws: KeeperRefusal.occupied) { try custody.put(key, try memory()) }
        try custody.put(CustodyKey(machine: "web1", name: "ram", generation: 1), try memory())
    }

    @Test func whatIsDroppedIsGone() throws {
        var custody = Custody()
        let key = CustodyKey(machine: "web1", name: "ram")
        try custody.put(key, try memory())
        try custody.drop(key)
        #expect(throws: KeeperRefusal.absent) { try custody.get(key) }
        #expect(throws: KeeperRefusal.absent) { try custody.drop(key) }
        #expect(custody.entry(from: 0) == nil)
    }

    @Test func everyEntryIsListedOnce() throws {
        var custody = Custody()
        let memory = try memory()
        let keys = (0..<40).map { CustodyKey(machine: "m\($0 % 3)", name: "r\($0)", generation: UInt32($0)) }
        for key in keys { try custody.put(key, memory) }
        try custody.drop(keys[7])
        var listed: [CustodyKey] = []
        var slot = 0
        while let entry = custody.entry(from: slot) {
            listed.append(entry.key)
            slot = entry.slot + 1
        }
        #expect(Set(listed) == Set(keys).subtracting([keys[7]]))
        #expect(listed.count == 39)
    }

    @Test func aFullTableRefusesAndStaysWhole() throws {
        var custody = Custody()
        let memory = try memory()
        for index in 0..<Custody.capacity { try custody.put(CustodyKey(machine: "", name: "\(index)"), memory) }
        #expect(throws: KeeperRefusal.full) { try custody.put(CustodyKey(machine: "", name: "one more"), memory) }
        #expect(custody.count == Custody.capacity)
    }
}
