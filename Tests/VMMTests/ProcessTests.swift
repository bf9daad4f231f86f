import Handover
import LinuxSystem
import Testing

@testable import VMM

@Suite(
    .serialized, .enabled(if: Host.hasKVM, "there is no /dev/kvm here"), .enabled(if: Host.hasGuest, "make guest has not been run"),
    .enabled(if: Host.hasImages, "make images has not been run"))
struct ProcessTests {
    @Test(arguments: [1, 2])
    func aMachineGoesBackAndForthBetweenTwoVersions(vcpus: Int) throws {
        let bench = try Bench(vcpus: UInt32(vcpus))
        var worker = try bench.powerOn(try bench.process("baton-vmm", generation: 1), "report-ms=200")
        try #require(bench.guest.makesProgress(within: .seconds(20)))
        for generation in 2...9 {
            let next = try bench.process(generation % 2 == 0 ? "baton-vmm-next" : "baton-vmm", generation: UInt32(generation))
            let times = try bench.handOver(from: worker, to: next)
            print("\(vcpus) vCPUs: \(times.line)")
            try worker.retire()
            worker = next
            #expect(bench.guest.makesProgress())
        }
        #expect(bench.guest.damage == 0)
        #expect(bench.guest.lost == 0)
        try worker.retire()
    }

    @Test func aShippedImageKnowsNoFailpoint() throws {
        let image = try OwnedDescriptor.open(Host.images + "/baton-vmm", followingLinks: true)
        let bytes = try image.read(upTo: try image.size(), at: 0)
        let faulty = try OwnedDescriptor.open(Host.images + "/baton-vmm-faulty", followingLinks: true)
        let others = try faulty.read(upTo: try faulty.size(), at: 0)
        for name in ["unhealthy-in-soak"] {
            #expect(!contains(bytes, name))
            #expect(contains(others, name))
        }
    }

    /// Looks at every nth byte only, as long as it is none of the n bytes wanted.
    private func contains(_ bytes: [UInt8], _ text: String) -> Bool {
        let wanted = Array(text.utf8)
        var at = wanted.count - 1
        while at < bytes.count {
            if wanted.contains(bytes[at]) {
                for start in max(0, at - wanted.count + 1)...at where bytes[start...].starts(with: wanted) { return true }
            }
            at += wanted.count
        }
        return false
    }
}
