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
    let latch = Latch()
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
        devices = parts.devices
        tscKHz = parts.tscKHz
        dmaSpaces = parts.dmaSpaces
        let machineVM = parts.vm
        stateIO = parts.vcpus.map { VCPUStateIO(vm: machineVM, vcpu: $0, plan: blueprint.msrs) }
        event = try doing("making an eventfd") { () throws(Errno) in try EventDescriptor() }
    }

    var firstVCPU: VCPU { vcpus[0] }
    var threads: [VCPUThread] { threadList.withLock { $0 } }

    /// Starts the vCPUs' threads, parked. From a thread with ordinary scheduling: they inherit it.
    func startThreads() throws(VMMError) {
        try devices.start { [weak self] in self?.guestEnded($0) }
        let started = vcpus.enumerated().map { index, vcpu in
            VCPUThread(
                vcpu, machine: blueprint.name, affinity: index < blueprint.affinities.count ? blueprint.affinities[index] : [],
                handler: self, arrivals: latch)
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
        return awaitRunning()
    }

    /// Has the vCPUs run; somebody waits for it with ``awaitRunning()``.
    func release() {
        if isEnded { return }
        let threads = threads
        latch.close(for: threads.count)
        // What has waited is there before the guest is, and no end of an interrupt can pass unnoticed.
        devices.resumeInterrupts()
        for thread in threads { thread.run() }
    }

    /// Runs the devices, as the vCPUs do. CLOCK_MONOTONIC just before the first of them entered the guest.
    func awaitRunning() -> Int64 {
        let hasEnded = isEnded
        if !hasEnded { devices.resume() }
        // A vCPU's thread that says it is about to run is not interrupted by who hears it.
        SystemThread.setEagerness(.patient)
        _ = latch.wait(timeout: .seconds(1))  // also where one has ended the guest since, and others are still on their way
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
        SystemThread.setUrgent(urgent)
        for thread in threads { thread.setUrgent(urgent) }
    }

    /// How many vCPU threads answer a kick in time.
    func countAlive(within timeout: Duration) -> Int {
        threads.count { $0.isAlive(within: timeout) }
    }

    /// Does something once for every vCPU and waits for all. The calling thread begins with the first one, which would only wait, the others with
    /// their own, and whoever is done goes on with one that nobody has begun, where KVM allows it: a thread that has to wait for a CPU holds nobody
    /// up. The vCPUs are parked: their threads do nothing else.
    func forEveryVCPU(_ body: @escaping @Sendable (VCPUThread, Int) throws(VMMError) -> Void) throws(VMMError) {
        let threads = threads
        let claims = threads.map { _ in Claim() }
        let failures = FailureBox()
        let latch = latch
        let others = takesStateFromAnyThread ? threads.count - 1 : 0
        let work: @Sendable (Int) -> Void = { own in
            for offset in 0...others {
                let index = (own + offset) % threads.count
                guard claims[index].take() else { continue }
                failures.catching { () throws(VMMError) in try body(threads[index], index) }
                latch.arrive()
            }
        }
        latch.close(for: threads.count)
        for (index, thread) in threads.enumerated().dropFirst() { thread.park { _ in work(index) } }
        work(0)
        guard latch.wait(timeout: Self.patience) else { throw VMMError("a vCPU's thread did not finish its work") }
        if let failure = failures.value { throw failure }
    }

    /// Does something on the first vCPU's thread, which like all others is parked, and waits for it; patiently where the outcome `isPatient`.
    func onFirstVCPU<Value: Sendable>(
        isPatient: @escaping @Sendable (Value) -> Bool = { _ in false }, _ body: @escaping @Sendable () throws(VMMError) -> Value
    ) throws(VMMError) -> Value {
        let result = Mutex<Result<Value, VMMError>?>(nil)
        let done = Latch(glance: .microseconds(200))
        done.close(for: 1)
        guard let first = threads.first else { throw VMMError("there are no vCPUs") }
        first.park { _ in
            let outcome = Result { () throws(VMMError) in try body() }
            result.withLock { $0 = outcome }
            done.arrive(quietly: (try? outcome.get()).map(isPatient) ?? false)
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

/// One of several threads does a thing: the first one to take this.
private final class Claim: Sendable {
    private let isTaken = Atomic(false)

    func take() -> Bool { !isTaken.exchange(true, ordering: .sequentiallyConsistent) }
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
