import KeeperTestSupport
import LinuxSystem
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

    @Test func aPlaceThatBecameFreeIsTakenAgain() throws {
        var custody = Custody()
        let memory = try memory()
        for index in 0..<10 { try custody.put(CustodyKey(machine: "m\(index % 2)", name: "\(index)"), memory) }
        for index in 3..<7 { try custody.drop(CustodyKey(machine: "m\(index % 2)", name: "\(index)")) }
        for index in 3..<7 { try custody.put(CustodyKey(machine: "m2", name: "\(index)"), memory) }
        #expect(custody.count == 10)
        #expect(custody.entry(from: 10) == nil)
        for index in 0..<10 { _ = try custody.get(CustodyKey(machine: (3..<7).contains(index) ? "m2" : "m\(index % 2)", name: "\(index)")) }
    }

    @Test func aFullTableRefusesAndStaysWhole() throws {
        var custody = Custody()
        let memory = try memory()
        for index in 0..<Custody.capacity { try custody.put(CustodyKey(machine: "m\(index / 16)", name: "\(index % 16)"), memory) }
        #expect(throws: KeeperRefusal.full) { try custody.put(CustodyKey(machine: "", name: "one more"), memory) }
        #expect(custody.count == Custody.capacity)
    }
}

@Suite struct CustodyClientTests {
    @Test func theKeysOfAMachineAreKnownWithoutAskingAgain() throws {
        let keeper = try TestKeeper()
        let client = keeper.client
        let memory = SharedDescriptor(try MemoryDescriptor(name: "test", size: 4096).takeDescriptor())
        let keys = ["a", "b", "c"].map { CustodyKey(machine: "m1", name: $0) }
        try client.put(keys[0], memory)
        #expect(try client.keys(of: "m1") == [keys[0]])
        let before = keeper.asked
        #expect(try client.keys(of: "m1") == [keys[0]])
        #expect(try client.keys(of: "m2").isEmpty)
        try client.drop(keys[1])
        #expect(throws: CustodyError.self) { try client.put(keys[0], memory) }
        #expect(keeper.asked == before, "it is known what is there and what is not")
        try client.put(keys[1], memory)
        try client.put(keys[2], memory)
        try client.drop(keys[0])
        #expect(keeper.asked == before + 3)
        #expect(try Set(client.keys(of: "m1")) == Set(keys[1...]))
        #expect(try Set(client.list()) == Set(keys[1...]))
    }
}
