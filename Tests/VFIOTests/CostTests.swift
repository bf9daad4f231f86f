import Control
import Handover
import LinuxSystem
@testable import Supervisor
import SystemPackage
import Testing
import VFIO

/// What taking over costs, by number of mappings and by size: printed, and checked for its shape only.
@Suite(.serialized, .enabled(if: Lab.isHere, Comment(rawValue: Lab.reason))) struct CostTests {
    @Test(arguments: PassthroughCustodyTests.backends) func takingOverCostsByMappingsNotByBytes(backend: VFIOSpec.Backend) throws {
        try LabDevice.prepare(LabDevice.edu)
        for bytes: UInt64 in [256 << 20, 2 << 30] {
            let memory = try guestMemory(Int(bytes))
            var costs: [(count: UInt64, cost: Duration)] = []
            for count: UInt64 in [1, 8, 64, 512] {
                let held = try HeldDevices([VFIOSpec(address: LabDevice.edu, backend: backend)])
                let layout = Peer.Layout(length: bytes / count, iova: 4 << 30, count: count)
                let workers = (try Peer(user: Peer.users.0), try Peer(user: Peer.users.1))
                var best: Duration = .seconds(60)
                if case .iommufd(let ioas) = held.resources.devices[0].backend, let iommufd = held.resources.iommufd {
                    try workers.0.map(memory, layout, in: iommufd, ioas)
                    for _ in 0..<5 {
                        best = min(best, try workers.1.changeProcess(iommufd))
                        best = min(best, try workers.0.changeProcess(iommufd))
                    }
                } else if let container = held.resources.container {
                    try workers.0.map(memory, layout, in: container)
                    for _ in 0..<5 {
                        best = min(best, try workers.1.bring(memory, layout, to: container))
                        best = min(best, try workers.0.bring(memory, layout, to: container))
                    }
                }
                costs.append((count, best))
            }
            guard let few = costs.first, let many = costs.last else { continue }
            let slope = Double((many.cost - few.cost).nanoseconds) / Double(many.count - few.count) / 1000
            let line = costs.map { "\($0.count): \($0.cost.nanoseconds / 1000) µs" }.joined(separator: ", ")
            print("take-over by \(backend.rawValue), \(bytes >> 20) MiB: \(line); \((slope * 100).rounded() / 100) µs a mapping")
            #expect(costs.allSatisfy { $0.cost < .seconds(1) })
        }
    }
}
