import Checkpoint
import Handover
import KVM
import LinuxSystem
import Testing
import Wire

@testable import VMM

@Suite(.serialized, .enabled(if: Host.hasKVM, "there is no /dev/kvm here"), .enabled(if: Host.hasGuest, "make guest has not been run"))
struct SessionTests {
    /// A machine that runs, and says so itself.
    private func running(vcpus: UInt32 = 1, _ commandLine: String = "report-ms=100") throws -> (Bench, Worker) {
        let bench = try Bench(vcpus: vcpus)
        let worker = try bench.powerOn(commandLine)
        try #require(bench.guest.makesProgress(within: .seconds(20)))
        return (bench, worker)
    }

    private func expectUnharmed(_ bench: Bench) {
        #expect(bench.guest.makesProgress())
        #expect(bench.guest.damage == 0)
        #expect(bench.guest.lost == 0)
        #expect(!bench.output.contains("DAMAGE"))
    }

    /// Prepared, settled and saved: everything before the commit.
    private func save(_ bench: Bench, _ outgoing: Worker, _ incoming: Worker, freeze: UInt64 = 20_000_000_000) throws -> (UInt64, UInt32) {
        try bench.prepare(outgoing, incoming)
        try outgoing.settle()
        guard case .saved(let length, let digest, _, _, _) = try outgoing.order(.save(freezeNanoseconds: freeze)) else { throw VMMError("not saved") }
        return (length, digest)
    }

    @Test func aMachineIsPoweredOnFromDescriptors() throws {
        let (bench, worker) = try running(vcpus: 2)
        #expect(try worker.order(.health) == .health(alive: 2, vcpus: 2, problem: nil))
        #expect(try worker.order(.locate) == .location(.running))
        #expect(bench.waitForOutput("heartbeat boot vcpus=2"))
        expectUnharmed(bench)
        try worker.retire()
    }

    @Test func itGoesFromWorkerToWorkerUnharmed() throws {
        let (bench, first) = try running(vcpus: 2)
        var worker = first
        let fingerprint = try worker.order(.fingerprint)
        for generation in 2...8 {
            let next = try bench.worker(generation: UInt32(generation))
            let times = try bench.handOver(from: worker, to: next, practising: generation % 2 == 0)
            print("handover to \(generation): \(times.line)")
            #expect(try next.order(.fingerprint) == fingerprint)
            try worker.retire()
            worker = next
            expectUnharmed(bench)
        }
        #expect(bench.guest.largestClockDifference < 100_000)
        try worker.retire()
    }

    @Test func practiceLeavesNothingBehind() throws {
        let (bench, worker) = try running(vcpus: 2)
        let next = try bench.worker(generation: 2)
        guard case .refused = try next.order(.practise(cpu: 0)) else {
            Issue.record("a worker without a machine practised")
            return
        }
        let saved = try save(bench, worker, next)
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        // Where there is no such CPU it stays where it is.
        for cpu: UInt32? in [nil, 0, 100_000] { #expect(try next.order(.practise(cpu: cpu)) == .practised(cpu: nil)) }
        for _ in 1...20 {
            guard case .practised(let cpu) = try worker.order(.practise(cpu: nil)), cpu != nil else { throw VMMError("not practised") }
        }
        #expect(CommitWord(rawValue: bench.word.load()) == CommitWord(.running, 1))
        #expect(saved.0 > 0)
        expectUnharmed(bench)
        try worker.settle()
        guard case .practised = try worker.order(.practise(cpu: nil)) else { throw VMMError("not practised") }
        guard case .saved(let length, let digest, _, _, _) = try worker.order(.save(freezeNanoseconds: 20_000_000_000)) else {
            throw VMMError("not saved")
        }
        guard case .refused = try worker.order(.practise(cpu: nil)) else {
            Issue.record("a frozen worker practised")
            return
        }
        guard case .loaded = try next.order(.load(length: length, digest: digest)) else { throw VMMError("not loaded") }
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        expectUnharmed(bench)
        try worker.retire()
        try next.retire()
    }

    @Test func whatPracticeHasLeftDecidesNothing() throws {
        let (bench, worker) = try running(vcpus: 2)
        let next = try bench.worker(generation: 2)
        try bench.prepare(worker, next)
        let memory = try SharedMapping(of: bench.checkpoint.descriptor, length: try bench.checkpoint.descriptor.size())
        let start = memory.length / 2
        // Nothing yet: it practises with what it has itself.
        #expect(memory.copyOut(at: start, count: 8) == [UInt8](repeating: 0, count: 8))
        #expect(try next.order(.practise(cpu: nil)) == .practised(cpu: nil))
        try bench.practise(worker, next)
        #expect(memory.copyOut(at: start, count: 8) == Array("BATONCKP".utf8))
        #expect(memory.copyOut(at: 0, count: 8) == [UInt8](repeating: 0, count: 8), "that is where a checkpoint to be loaded lies")

        // Whatever is there, practice decides nothing: what cannot be read, or is another machine's or generation's, is left alone.
        let left = memory.copyOut(at: start, count: memory.length - start)
        let length = try CheckpointHeader(judging: left).totalLength
        for position in Array(stride(from: 0, to: CheckpointFormat.headerLength, by: 5)) + stride(from: 97, to: length, by: length / 24) {
            memory.copyIn([left[position] ^ 0x55].span, at: start + position)
            #expect(try next.order(.practise(cpu: nil)) == .practised(cpu: nil), "byte \(position)")
            memory.copyIn([left[position]].span, at: start + position)
        }
        expectUnharmed(bench)
        try bench.practise(worker, next)

        _ = try bench.handOverPrepared(from: worker, to: next)
        try worker.retire()
        expectUnharmed(bench)
        try next.retire()
    }

    @Test func anOverdueFreezeEndsByItself() throws {
        let (bench, worker) = try running()
        let next = try bench.worker(generation: 2)
        _ = try save(bench, worker, next, freeze: 1_000_000_000)
        #expect(try worker.next() == .resumed(overdue: true))
        #expect(CommitWord(rawValue: bench.word.load()) == CommitWord(.running, 1))
        #expect(try worker.order(.locate) == .location(.running))
        expectUnharmed(bench)
        try worker.retire()
        try next.retire()
    }

    @Test func afterTheCommitAFreezeEndsNoMore() throws {
        let (bench, worker) = try running()
        let next = try bench.worker(generation: 2)
        _ = try save(bench, worker, next, freeze: 1_000_000_000)
        bench.word.store(CommitWord(.committed, 2).rawValue)
        let beats = bench.guest.beats
        SystemClock.sleep(.milliseconds(1300))
        #expect(bench.guest.beats == beats)
        #expect(try worker.order(.locate) == .location(.stopped))
        guard case .refused = try worker.order(.resume) else {
            Issue.record("it resumed a machine that is another generation's")
            return
        }
        #expect(bench.guest.beats == beats)
        try worker.retire()
        try next.retire()
    }

    @Test(arguments: [WorkerPhase.settled, .frozen])
    func anAbortLetsTheGuestRunOnAndTheNextHandoverSucceed(phase: WorkerPhase) throws {
        let (bench, worker) = try running()
        let failed = try bench.worker(generation: 2)
        if phase == .frozen {
            _ = try save(bench, worker, failed)
        } else {
            try bench.prepare(worker, failed)
            try worker.settle()
        }
        #expect(try worker.order(.locate) == .location(phase))
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        try failed.retire()
        expectUnharmed(bench)
        let next = try bench.worker(generation: 2)
        _ = try bench.handOver(from: worker, to: next)
        try worker.retire()
        expectUnharmed(bench)
        try next.retire()
    }

    @Test func aDamagedCheckpointIsRefusedAndTheGuestRunsOn() throws {
        let (bench, worker) = try running()
        for position in [3, 40, 100, 900, 5000] {
            let next = try bench.worker(generation: 2)
            let (length, digest) = try save(bench, worker, next)
            let memory = try SharedMapping(of: bench.checkpoint.descriptor, length: Int(length))
            let byte = memory.copyOut(at: position, count: 1)
            memory.copyIn([byte[0] ^ 0x10].span, at: position)
            guard case .refused(let reason) = try next.order(.load(length: length, digest: digest)) else {
                Issue.record("a checkpoint damaged at \(position) was loaded")
                return
            }
            print("damaged at \(position): \(reason)")
            try next.retire()
            #expect(try worker.order(.resume) == .resumed(overdue: false))
        }
        expectUnharmed(bench)
        try worker.retire()
    }

    @Test func anotherMachineIsRefusedByItsFingerprint() throws {
        let (bench, worker) = try running()
        var failpoints = Failpoints()
        failpoints.cpuid = { table in table.update(0x8000_0002) { $0.eax ^= 1 } }
        let next = try bench.worker(generation: 2, failpoints: failpoints)
        let (length, digest) = try save(bench, worker, next)
        #expect(try next.order(.fingerprint) != worker.order(.fingerprint))
        guard case .refused(let reason) = try next.order(.load(length: length, digest: digest)) else {
            Issue.record("it was loaded")
            return
        }
        #expect(reason.contains("fingerprint"))
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        expectUnharmed(bench)
        try next.retire()
        try worker.retire()
    }

    @Test func aGrantWithoutACommitIsRefused() throws {
        let (bench, worker) = try running()
        let next = try bench.worker(generation: 2)
        let (length, digest) = try save(bench, worker, next)
        guard case .loaded = try next.order(.load(length: length, digest: digest)) else { throw VMMError("not loaded") }
        let beats = bench.guest.beats
        guard case .refused = try next.order(.grant) else {
            Issue.record("two generations may run")
            return
        }
        #expect(bench.guest.beats == beats)
        #expect(CommitWord(rawValue: bench.word.load()) == CommitWord(.frozen, 1))
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        expectUnharmed(bench)
        try next.retire()
        try worker.retire()
    }

    @Test func theCheckpointServesAnotherGenerationWhenTheFirstDies() throws {
        let (bench, worker) = try running()
        let dies = try bench.worker(generation: 2)
        let (length, digest) = try save(bench, worker, dies)
        guard case .loaded = try dies.order(.load(length: length, digest: digest)) else { throw VMMError("not loaded") }
        let blueprint = try bench.blueprint(of: worker, for: dies)
        bench.word.store(CommitWord(.committed, 2).rawValue)
        try dies.retire()
        bench.word.store(CommitWord(.committed, 3).rawValue)
        let next = try bench.worker(generation: 3)
        guard case .prepared = try next.order(.prepare(blueprint: blueprint), timeout: .seconds(20)) else { throw VMMError("not prepared") }
        guard case .loaded = try next.order(.load(length: 0, digest: 0)) else { throw VMMError("not loaded") }  // its header says how long it is
        guard case .running = try next.order(.grant) else { throw VMMError("not running") }
        try worker.retire()
        expectUnharmed(bench)
        try next.retire()
    }

    @Test func nothingBeforeTheCommitTouchesGuestMemory() throws {
        let (bench, worker) = try running(vcpus: 2)
        SystemClock.sleep(.milliseconds(300))  // KVM brings its own clock pages up to date 100 ms after a guest has named them
        #expect(try worker.order(.pause) == .done)
        let before = try bench.digest()
        let next = try bench.worker(generation: 2)
        try bench.prepare(worker, next)
        try bench.practise(worker, next)
        #expect(try bench.digest() == before)
        try next.retire()
        let another = try bench.worker(generation: 2)
        let (length, digest) = try save(bench, worker, another)
        guard case .loaded = try another.order(.load(length: length, digest: digest)) else { throw VMMError("not loaded") }
        #expect(try bench.digest() == before)
        #expect(try worker.order(.resume) == .resumed(overdue: false))
        try another.retire()
        #expect(try bench.digest() == before)
        #expect(try worker.order(.unpause) == .done)
        expectUnharmed(bench)
        try worker.retire()
    }

    @Test func aPausedMachineIsHandedOverPaused() throws {
        let (bench, worker) = try running()
        #expect(try worker.order(.pause) == .done)
        let beats = bench.guest.beats
        let next = try bench.worker(generation: 2)
        _ = try bench.handOver(from: worker, to: next)
        try worker.retire()
        #expect(try next.order(.locate) == .location(.paused))
        #expect(bench.guest.beats == beats)
        #expect(try next.order(.unpause) == .done)
        expectUnharmed(bench)
        try next.retire()
    }

    @Test func anOrderForAnotherGenerationIsRefusedAndARepeatedOneAnsweredAgain() throws {
        let (bench, worker) = try running()
        guard case .refused = try worker.order(.pause, generation: 9) else {
            Issue.record("it obeyed an order for another generation")
            return
        }
        let first = try worker.order(.pause)
        #expect(try worker.repeatOrder(.unpause) == first)  // the number decides: carried out once, answered twice
        #expect(try worker.order(.locate) == .location(.paused))
        #expect(try worker.order(.unpause) == .done)
        expectUnharmed(bench)
        try worker.retire()
    }

    @Test func whatTheGuestAskedForIsCarriedAcrossTheHandover() throws {
        let (bench, worker) = try running()
        let next = try bench.worker(generation: 2)
        try bench.prepare(worker, next)
        try worker.settle()
        #expect(try worker.order(.requestPowerOff) == .done)
        #expect(bench.waitForOutput("power-off"))
        SystemClock.sleep(.milliseconds(200))
        guard case .saved(let length, let digest, _, _, _) = try worker.order(.save(freezeNanoseconds: 20_000_000_000)) else {
            throw VMMError("not saved")
        }
        guard case .loaded = try next.order(.load(length: length, digest: digest)) else { throw VMMError("not loaded") }
        bench.word.store(CommitWord(.committed, 2).rawValue)
        guard case .running = try next.order(.grant) else { throw VMMError("not running") }
        #expect(try next.next() == .poweredOff)
        #expect(worker.unasked.isEmpty)
        try worker.retire()
        try next.retire()
    }

    @Test(arguments: [("exit-after-s=1", Report.poweredOff), ("reset-after-s=1", .resetRequested)])
    func whatTheGuestAsksForIsReported(commandLine: String, report: Report) throws {
        let (_, worker) = try running(commandLine)
        #expect(try worker.next(timeout: .seconds(20)) == report)
        #expect(try worker.order(.locate) == .location(.stopped))
        try worker.retire()
    }

    @Test func theGuestSwitchesItselfOffWhenAsked() throws {
        let (_, worker) = try running()
        #expect(try worker.order(.requestPowerOff) == .done)
        #expect(try worker.next(timeout: .seconds(20)) == .poweredOff)
        try worker.retire()
    }

    @Test func whatHasNotBeenLentIsNamed() throws {
        let worker = try Worker(generation: 1, image: WorkerImage(version: "test"), failpoints: .none)
        let bench = try Bench()
        guard case .refused(let reason) = try worker.order(.start(bench.specification(""))) else {
            Issue.record("it started without anything")
            return
        }
        #expect(reason.contains("kvm"))
        #expect(try worker.order(.locate) == .location(.waiting))
        try worker.retire()
    }
}
