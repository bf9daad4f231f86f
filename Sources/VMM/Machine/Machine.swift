internal import GuestMemory
internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// One machine in this process: its VM, RAM, devices and vCPU threads. Built stopped; run, parked, saved and restored by its session.
final class Machine: Sendable {
    let blueprint: Blueprint
    let fingerprint: Fingerprint
    let vm: VirtualMachine
    let memory: GuestMemory
    let devices: DeviceSet
    let stateIO: [VCPUStateIO]
    let tscKHz: UInt32
    /// Where passed-through devices reach RAM.
    let dmaSpaces: [DMASpace]
    let association = Association()
    private let vcpus: [VCPU]
    /// Whether any thread may restore any vCPU. KVM before Linux 6.2 ties a counter of the guest's PMU to the thread that sets its MSR; this
    /// capability came soon after (6.3).
    private let takesStateFromAnyThread: Bool
    private let threadList = Mutex<[VCPUThread]>([])
    /// The threads, by number, that do what concerns every vCPU: the first one, and as many others as can run at the same time; all, where each must take
    /// its own vCPU's state.
    let crew: [Int]
    /// Whether all vCPUs' threads can run at the same time.
    let hasCPUForEach: Bool
    /// Guest-physical, of a page of RAM that exists; `nil` as long as nobody has looked.
    let existingPage = Mutex<UInt64?>(nil)
    let latch = Latch()
    /// Wakes the vCPUs' threads.
    private let bell = Bell()
    /// Nanoseconds that practice took.
    private let practised = Atomic<Int64>(0)
    /// Readable when the guest has ended.
    let event: EventDescriptor
    private let ending = Mutex<GuestEnding?>(nil)

    /// Takes over what ``MachineParts`` has made.
    init(_ parts: consuming MachineParts, blueprint: Blueprint) throws(VMMError) {
        self.blueprint = blueprint
        fingerprint = Fingerprint(blueprint, configuration: parts.devices.functions.fixedConfiguration)
        vm = parts.vm
        memory = parts.memory
        vcpus = parts.vcpus
        takesStateFromAnyThread = parts.vm.value(of: .maskedPMUEvents) > 0
        let side = Self.crew(of: parts.vcpus.count, boundTo: blueprint.affinities, processors: SystemClock.processorCount)
        hasCPUForEach = side.count == parts.vcpus.count
        crew = takesStateFromAnyThread ? side : Array(parts.vcpus.indices)
        devices = parts.devices
        tscKHz = parts.tscKHz
        dmaSpaces = parts.dmaSpaces
        let machineVM = parts.vm
        stateIO = parts.vcpus.map { VCPUStateIO(vm: machineVM, vcpu: $0, plan: blueprint.msrs) }
        event = try doing("making an eventfd") { () throws(Errno) in try EventDescriptor() }
    }

    /// Of so many threads those that can run beside the first one and each other, on so many CPUs: a thread that waits for the CPU of another one only
    /// costs that one's time. Each takes the first CPU that is left, so that there may be fewer than could be.
    static func crew(of threads: Int, boundTo affinities: [[UInt64]], processors: Int) -> [Int] {
        var taken = [UInt64](repeating: 0, count: SystemThread.everyCPU.count)
        var crew: [Int] = []
        for index in 0..<threads where crew.count < processors {
            let affinity = index < affinities.count ? affinities[index] : []
            if !affinity.isEmpty {
                guard let word = affinity.indices.first(where: { $0 < taken.count && affinity[$0] & ~taken[$0] != 0 }) else { continue }
                let free = affinity[word] & ~taken[word]
                taken[word] |= free & ~(free &- 1)
            }
            crew.append(index)
        }
        return crew
    }

    /// Whether a handover takes so long here that waking a thread is the least of it.
    var isSlow: Bool { practised.load(ordering: .relaxed) > 2_000_000 }

    /// How often a session looks whether vCPUs' threads have done what they have practised. Each look may cost one of them its CPU for a moment: as they work
    /// there are to be two or three, and on a slow host the session is woken instead.
    private var glance: Duration { isSlow ? .milliseconds(20) : .nanoseconds(max(practised.load(ordering: .relaxed), 200_000)) }

    /// The same for the outgoing session, which nothing waits for but the supervisor: where vCPUs share CPUs it would take one from the incoming worker.
    var rareGlance: Duration {
        hasCPUForEach && !isSlow ? glance : .nanoseconds(min(max(practised.load(ordering: .relaxed) * 2, 200_000), 20_000_000))
    }

    /// How long a thread watches for what others are about to do.
    var moment: Duration { .nanoseconds(min(max(practised.load(ordering: .relaxed) / 10, 100_000), 1_000_000)) }

    func notePractice(since began: Int64) { practised.store(SystemClock.monotonic() - began, ordering: .relaxed) }

    var firstVCPU: VCPU { vcpus[0] }
    var threads: [VCPUThread] { threadList.withLock { $0 } }

    /// Starts the vCPUs' threads, parked. From a thread with ordinary scheduling: they inherit it.
    func startThreads() throws(VMMError) {
        try devices.start { [weak self] in self?.guestEnded($0) }
        let started = vcpus.enumerated().map { index, vcpu in
            VCPUThread(
                vcpu, machine: blueprint.name, affinity: index < blueprint.affinities.count ? blueprint.affinities[index] : [],
                handler: self, arrivals: latch, bell: bell)
        }
        for thread in started {
            try doing("starting the thread of vCPU \(thread.vcpu.index)") { () throws(Errno) in try thread.start() }
        }
        threadList.withLock { $0 = started }
    }

    /// Ends all threads.
    func finish() {
        for thread in threads { thread.finish() }
        threadList.withLock { $0 = [] }
        devices.finish()
    }

    /// Runs devices and vCPUs. CLOCK_MONOTONIC just before the first of them entered the guest.
    ///
    /// A guest that has ended stays where it is.
    @discardableResult
    func run() -> Int64 {
        release()
        return awaitRunning(resumingDevicesFirst: true)
    }

    /// Has the vCPUs run; somebody waits for it with ``awaitRunning()``.
    func release() {
        if isEnded { return }
        let threads = threads
        latch.close(for: threads.count)
        // What has waited is there before the guest is, and no end of an interrupt can pass unnoticed.
        devices.resumeInterrupts()
        for thread in threads { thread.prepareToRun() }
        bell.ring(.max)
    }

    /// Runs the devices, as the vCPUs do. CLOCK_MONOTONIC just before the first of them entered the guest.
    ///
    /// - Parameter resumingDevicesFirst: where somebody waits for this thread, which has to get its CPU back.
    func awaitRunning(resumingDevicesFirst: Bool = false) -> Int64 {
        let hasEnded = isEnded
        if resumingDevicesFirst, !hasEnded { devices.resume() }
        // A vCPU's thread that says it is about to run is not interrupted by who hears it.
        SystemThread.setEagerness(.patient)
        // Devices take CPUs that vCPUs' threads want, and no request of theirs is lost: first come the vCPUs, unless a host keeps one of them waiting.
        let areAllThere = latch.wait(timeout: .milliseconds(5))
        if !resumingDevicesFirst, !hasEnded { devices.resume() }
        if !areAllThere { _ = latch.wait(timeout: .seconds(1)) }  // also where one has ended the guest since, and others are still on their way
        SystemThread.setEagerness(.ordinary)
        return hasEnded ? SystemClock.monotonic() : threads.map(\.firstRunTime).min() ?? 0
    }

    var isEnded: Bool { ending.withLock { $0 } != nil }

    /// Parks every vCPU: out of the guest, nothing half done. Dropping the result runs them again.
    func park(timeout: Duration) throws(VMMError) -> ParkedVCPUs {
        let threads = threads
        latch.close(for: threads.count)
        for thread in threads { thread.park() }
        guard latch.wait(timeout: timeout) else { throw late(within: timeout) }
        let parked = ParkedVCPUs(self)
        try devices.quiesce(within: timeout)
        devices.stopInterrupts()
        return parked
    }

    /// Binds the vCPUs' threads to the CPUs that the guest is meant to have, or lets go of them: threads that will not run the guest any more should
    /// not end where another worker runs it.
    func setPinned(_ pinned: Bool) {
        for thread in threads { thread.setPinned(pinned) }
    }

    /// Gives the calling thread and the vCPUs' the CPU as soon as they wake: what else a host does, preparing other machines' handovers
    /// for one, waits rather than this guest.
    func setUrgent(_ urgent: Bool) {
        // Where they share CPUs: as long as it takes to stop all of them, or to save or restore one. With one CPU that would be no less than others have.
        let turn: Duration = SystemClock.processorCount < 2 ? .microseconds(100) : hasCPUForEach ? moment : .milliseconds(1)
        SystemThread.setUrgent(urgent, turn: turn)
        for thread in threads { thread.setUrgent(urgent, turn: turn) }
    }

    /// How many vCPU threads answer a kick in time.
    func countAlive(within timeout: Duration) -> Int {
        threads.count { $0.isAlive(within: timeout) }
    }

    /// Does something once for every vCPU, with what `preparing` gives, and waits for all. The calling thread prepares and begins with the first one, the
    /// rest of the crew with their own, and whoever is done goes on with one that nobody has begun, where KVM allows it: a thread that has to wait for a
    /// CPU holds nobody up. The vCPUs are parked: their threads do nothing else.
    ///
    /// - Parameter isPractice: a guest runs elsewhere, maybe on the same CPUs: nobody watches for what comes next.
    @discardableResult
    func forEveryVCPU<Input: Sendable>(
        isPractice: Bool = false, preparing: () throws(VMMError) -> Input,
        _ body: @escaping @Sendable (Input, VCPUThread, Int) throws(VMMError) -> Void
    ) throws(VMMError) -> Input {
        let threads = threads
        let claims = threads.map { _ in Claim() }
        let failures = FailureBox()
        let latch = latch
        let others = takesStateFromAnyThread ? threads.count - 1 : 0
        let watching = !isPractice && (takesStateFromAnyThread || hasCPUForEach) ? moment : .zero
        let work: @Sendable (Input, Int) -> Void = { input, own in
            for offset in 0...others {
                let index = (own + offset) % threads.count
                guard claims[index].take() else { continue }
                failures.catching { () throws(VMMError) in try body(input, threads[index], index) }
                latch.arrive()
            }
        }
        latch.close(for: threads.count)
        let prepared = Prepared<Input>()
        func rouse() {
            var roused: UInt32 = 0
            for index in crew where index != 0 {
                threads[index].prepare(watching: watching) { _ in
                    if let input = prepared.wait(watching: watching) { work(input, index) }
                }
                roused |= threads[index].bit
            }
            if roused != 0 { bell.ring(roused) }
        }
        // They are awake when there is something to do; beside a guest that runs, not before.
        if !isPractice { rouse() }
        let input: Input
        do throws(VMMError) { input = try preparing() } catch {
            prepared.end(with: nil)
            throw error
        }
        prepared.end(with: input)
        if isPractice { rouse() }
        work(input, 0)
        guard latch.wait(timeout: Self.patience, watching: watching) else { throw VMMError("a vCPU's thread did not finish its work") }
        if let failure = failures.value { throw failure }
        return input
    }

    /// Does something on the first vCPU's thread, which like all others is parked, and waits for it; patiently where the outcome `isPatient`.
    func onFirstVCPU<Value: Sendable>(
        isPatient: @escaping @Sendable (Value) -> Bool = { _ in false }, _ body: @escaping @Sendable () throws(VMMError) -> Value
    ) throws(VMMError) -> Value {
        let result = Mutex<Result<Value, VMMError>?>(nil)
        let done = Latch(glance: glance)
        let isQuiet = !isSlow
        done.close(for: 1)
        guard let first = threads.first else { throw VMMError("there are no vCPUs") }
        first.park { _ in
            let outcome = Result { () throws(VMMError) in try body() }
            result.withLock { $0 = outcome }
            done.arrive(quietly: isQuiet && (try? outcome.get()).map(isPatient) ?? false)
        }
        while !done.wait(timeout: .seconds(60)) {}
        guard let outcome = result.withLock({ $0 }) else { throw VMMError("vCPU 0 has no result") }
        return try outcome.get()
    }

    /// What ended the guest, for good. The vCPU that met it has parked itself.
    var guestEnding: GuestEnding? { ending.withLock { $0 } }

    /// An ending that came with the checkpoint.
    func carryEnding(_ carried: GuestEnding) {
        ending.withLock { $0 = carried }
        event.signal()
    }
}

/// What one thread prepares and others wait for.
private final class Prepared<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let isOver = Futex()

    /// `nil`: nothing came of it.
    func end(with value: Value?) {
        self.value.withLock { $0 = value }
        isOver.set(1)
    }

    func wait(watching: Duration) -> Value? {
        while isOver.value == 0 { isOver.wait(while: 0, watching: watching) }
        return value.withLock { $0 }
    }
}

/// One of several threads does a thing: the first one to take this.
final class Claim: Sendable {
    private let taken = Atomic(false)

    var isTaken: Bool { taken.load(ordering: .sequentiallyConsistent) }
    func take() -> Bool { !taken.exchange(true, ordering: .sequentiallyConsistent) }
}

extension Machine: ExitHandler {
    func handle(_ access: PortAccess, of vcpu: VCPU) { devices.handle(access, of: vcpu) }
    func handle(_ access: MemoryAccess, of vcpu: VCPU) { devices.handle(access, of: vcpu) }
    func memory(at address: UInt64, count: Int) -> [UInt8]? { try? memory.read(at: address, count: count) }

    /// The first ending counts.
    func guestEnded(_ newEnding: GuestEnding) {
        ending.withLock { if $0 == nil { $0 = newEnding } }
        event.signal()
    }
}

/// Every vCPU of a machine out of the guest. Dropping it runs them again; keeping them stopped is the explicit act.
struct ParkedVCPUs: ~Copyable {
    private let machine: Machine
    private var staysParked = false

    init(_ machine: Machine) { self.machine = machine }

    deinit { if !staysParked { machine.run() } }

    /// They stay parked; whoever calls this runs them again, if ever, with ``Machine/run()``.
    consuming func keepParked() { staysParked = true }
}
