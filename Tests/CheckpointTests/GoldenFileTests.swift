import Checkpoint
import Testing
import Wire

@Suite struct `Golden checkpoints` {
    @Test(arguments: Golden.names)
    func `this version writes what was written then`(name: String) throws {
        #expect(try Golden.read(name) == Golden.write(name))
    }

    @Test(arguments: Golden.names)
    func `this version reads what was written then`(name: String) throws {
        let reader = try CheckpointReader(try Golden.read(name), expecting: Golden.identity, understanding: Golden.ranges)
        #expect(reader.header.writer == "0.1.0" && reader.header.generation == 7 && reader.header.machine == Golden.machine)
    }

    @Test(arguments: Golden.names)
    func `every truncation is refused`(name: String) throws {
        let bytes = try Golden.read(name)
        for length in 0..<bytes.count {
            #expect(throws: CheckpointError.self, "\(length) bytes") {
                try CheckpointReader(Array(bytes[..<length]), expecting: nil, understanding: Golden.ranges)
            }
        }
        #expect(throws: CheckpointError.length(said: UInt64(bytes.count), there: bytes.count + 1)) {
            try CheckpointReader(bytes + [0], expecting: nil, understanding: Golden.ranges)
        }
    }

    @Test(arguments: Golden.names)
    func `every flipped bit is refused`(name: String) throws {
        let bytes = try Golden.read(name)
        for bit in 0..<8 * bytes.count {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: CheckpointError.self, "bit \(bit % 8) of byte \(bit / 8)") {
                try CheckpointReader(damaged, expecting: nil, understanding: Golden.ranges)
            }
        }
    }

    @Test(arguments: Golden.names)
    func `an inspection lists damage instead of refusing it, or refuses`(name: String) throws {
        let bytes = try Golden.read(name)
        #expect(try CheckpointInspection(bytes).isIntact)
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 0x10
            if let inspection = try? CheckpointInspection(damaged) { #expect(!inspection.isIntact, "byte \(index)") }
        }
    }
}
