import Control
import Handover
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing
import VFIO

/// A device that copies memory while one process takes the place of another, with real DMA through a real IOMMU driver.
@Suite(.serialized, .enabled(if: Lab.isHere, Comment(rawValue: Lab.reason))) struct TakeoverTests {
    private struct Bench {
        let held: HeldDevices
        let edu: EducationalDevice
        let memory: SharedDescriptor
        let view: SharedMapping
        let layout: Peer.Layout
        var event: SharedDescriptor { held.resources.devices[0].events.vectors[0] }

        static let size = 8 << 20

        init(_ backend: VFIOSpec.Backend, count: UInt64 = 4) throws {
            try LabDevice.prepare(LabDevice.edu)
            held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend)])
            edu = try EducationalDevice(held.resources.devices[0].file)
            memory = try guestMemory(Self.size)
            view = try SharedMapping(of: memory.descriptor, length: Self.size)
            layout = Peer.Layout(length: UInt64(Self.size) / count, count: count)
            try edu.device.arm(.msi, [event])
        }

        func map(by worker: Peer) throws {
            if case .iommufd(let ioas) = held.resources.devices[0].backend, let iommufd = held.resources.iommufd {
                try worker.map(memory, layout, in: iommufd, ioas)
            } else if let container = held.resources.container {
                try worker.map(memory, layout, in: container)
            }
        }

        func takeOver(by worker: Peer) throws {
            if let iommufd = held.resources.iommufd {
                try worker.changeProcess(iommufd)
            } else if let container = held.resources.container {
                try worker.bring(memory, layout, to: container)
            }
        }

        /// How much the kernel counts for `worker`: a container counts locked memory, iommufd pinned memory.
        func charge(_ worker: Peer) -> Int { held.resources.iommufd == nil ? worker.locked : worker.pinned }

        private func pattern(_ seed: Int) -> [UInt8] { (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ seed &* 7 &+ $0 >> 8) } }

        /// One page through the device, from place `from` of memory to `to`, `during` happening while the second copy is under way.
        /// The data must be right and each copy must interrupt exactly once.
        func copy(_ seed: Int, from: Int, to: Int, during: () throws -> Void) throws {
            view.copyIn(pattern(seed).span, at: from)
            view.copyIn([UInt8](repeating: 0, count: 4096).span, at: to)
            try edu.begin(.fromMemory, layout.iova + UInt64(from), count: 4096)
            #expect(try count(event) == 1)
            try edu.acknowledge()
            try edu.begin(.toMemory, layout.iova + UInt64(to), count: 4096)
            #expect(try edu.isBusy)
            try during()
            #expect(try count(event) == 1)
            try edu.acknowledge()
            #expect(view.copyOut(at: to, count: 4096) == pattern(seed))
        }
    }

    @Test(arguments: PassthroughCustodyTests.backends) func copiesGoOnWhileAnotherProcessTakesOver(backend: VFIOSpec.Backend) throws {
        let bench = try Bench(backend)
        var old = try Peer(user: Peer.users.0, memoryLock: Bench.size + (64 << 20))
        try bench.map(by: old)
        try bench.copy(0, from: 0, to: 5 << 20) {}
        for round in 1...Lab.rounds {
            let new = try Peer(user: round % 2 == 1 ? Peer.users.1 : Peer.users.0, memoryLock: Bench.size + (64 << 20))
            #expect(bench.charge(old) == Bench.size && bench.charge(new) == 0)
            let place = round % 64 << 12
            try bench.copy(round, from: place, to: (6 << 20) + place) {
                if round % 3 == 0 { old.end() }
                try bench.takeOver(by: new)
                if round % 3 != 0 { #expect(bench.charge(old) == 0) }
                old.end()
            }
            #expect(bench.charge(new) == Bench.size)
            old = new
        }
    }

    /// Nobody takes over at all: the device goes on, with the memory of a process that is dead.
    @Test(arguments: PassthroughCustodyTests.backends) func copiesGoOnWhenTheOnlyWorkerDies(backend: VFIOSpec.Backend) throws {
        let bench = try Bench(backend)
        let worker = try Peer()
        try bench.map(by: worker)
        try bench.copy(1, from: 0, to: 1 << 20) { worker.end() }
        try bench.copy(2, from: 4096, to: 7 << 20) {}
    }

    /// Containers: a worker that dies half way through leaves some mappings with addresses and some without. The next one repairs each.
    @Test func ahalfTakenContainerIsRepaired() throws {
        let bench = try Bench(.container)
        let container = try #require(bench.held.resources.container)
        let old = try Peer(user: Peer.users.0)
        try bench.map(by: old)
        let half = try Peer(user: Peer.users.1)
        var first = bench.layout
        first.count = 2
        try half.bring(bench.memory, first, to: container)
        #expect(half.locked == Bench.size / 2)
        half.end()
        // All at once no longer works: two are void, and the kernel does not say which.
        #expect(throws: Errno.invalidArgument) { try container.voidAddresses() }
        let next = try Peer(user: Peer.users.0)
        for index in 0..<bench.layout.count {
            var one = bench.layout
            (one.start, one.iova, one.count) = (index * one.length, one.iova + index * one.length, 1)
            _ = try? container.voidAddress(iova: one.iova, size: one.length)
            try next.bring(bench.memory, one, to: container, voiding: false)
        }
        #expect(next.locked == Bench.size)
        try bench.copy(3, from: 0, to: 6 << 20) {}
    }

    /// A limit in the way leaves a container's address void, which devices do not mind, and once it is gone the rest goes through.
    @Test func alimitInTheWayOfAContainerIsMetWithoutHarm() throws {
        let bench = try Bench(.container)
        let container = try #require(bench.held.resources.container)
        let old = try Peer(user: Peer.users.0)
        try bench.map(by: old)
        let new = try Peer(user: Peer.users.1, memoryLock: 4096)
        try bench.copy(4, from: 0, to: 2 << 20) {
            #expect(throws: Errno.noMemory) { try new.bring(bench.memory, bench.layout, to: container) }
        }
        try new.setMemoryLock(Bench.size + (64 << 20))
        try new.bring(bench.memory, bench.layout, to: container, voiding: false)
        #expect(new.locked == Bench.size && old.locked == 0)
        try bench.copy(5, from: 4096, to: 3 << 20) {}
    }

    @Test func alimitTooLowForTheFirstWorkerIsAnError() throws {
        for backend in PassthroughCustodyTests.backends {
            let bench = try Bench(backend)
            let worker = try Peer(memoryLock: Bench.size / 2 - 4096)
            #expect(throws: Errno.noMemory) { try bench.map(by: worker) }
        }
    }
}
