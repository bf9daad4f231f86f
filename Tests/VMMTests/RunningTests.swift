import Handover
import LinuxSystem
import Testing

@testable import VMM

@Suite(.serialized, .enabled(if: Host.hasKVM, "there is no /dev/kvm here"), .enabled(if: Host.hasGuest, "make -C guest has not been run"))
struct RunningTests {
    @Test func aWorkerPowersAMachineOn() throws {
        let bench = try Bench()
        let worker = try bench.powerOn("report-ms=200")
        SystemClock.sleep(.seconds(2))
        print(bench.output)
        #expect(bench.output.contains("heartbeat boot"))
        let health = try worker.order(.health)
        #expect(health == .health(alive: 1, vcpus: 1, problem: nil))
        try worker.retire()
    }

    @Test(.enabled(if: Host.hasImages, "make images has not been run"), arguments: [1, 2])
    func aMachineGoesFromProcessToProcess(vcpus: Int) throws {
        let bench = try Bench(vcpus: UInt32(vcpus))
        var worker = try bench.powerOn(try bench.process("baton-vmm", generation: 1), "report-ms=200")
        SystemClock.sleep(.milliseconds(600))
        for generation in 2...12 {
            let next = try bench.process(generation % 2 == 0 ? "baton-vmm-next" : "baton-vmm", generation: UInt32(generation))
            let times = try bench.handOver(from: worker, to: next)
            print(times.line)
            try worker.retire()
            worker = next
            SystemClock.sleep(.milliseconds(150))
        }
        SystemClock.sleep(.milliseconds(500))
        print(bench.output.split(separator: "\n").last ?? "")
        try worker.retire()
    }

    @Test func aMachineGoesFromWorkerToWorker() throws {
        let bench = try Bench(vcpus: 2)
        var worker = try bench.powerOn("report-ms=200")
        SystemClock.sleep(.milliseconds(600))
        for generation in 2...6 {
            let next = try bench.worker(generation: UInt32(generation))
            let times = try bench.handOver(from: worker, to: next)
            print(times.line)
            try worker.retire()
            worker = next
            SystemClock.sleep(.milliseconds(300))
        }
        print(bench.output)
        try worker.retire()
    }
}
