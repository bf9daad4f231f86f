internal import KVM
internal import LinuxSystem
internal import Synchronization
internal import SystemPackage

/// What a vCPU's thread does with the exits that concern the machine. Called on that thread, nothing else of the machine held.
protocol ExitHandler: AnyObject, Sendable {
    /// Emulates an access; answers a read through `vcpu`.
    func handle(_ access: PortAccess, of vcpu: VCPU)
    func handle(_ access: MemoryAccess, of vcpu: VCPU)
    /// Guest memory, for an account of a vCPU that cannot go on; `nil` where there is none.
    func memory(at address: UInt64, count: Int) -> [UInt8]?
    /// The guest cannot or will not go on. The thread parks itself afterwards.
    func guestEnded(_ ending: GuestEnding)
}

/// Why a vCPU stopped for good, as far as its worker is concerned.
enum GuestEnding: Sendable, Equatable {
    case powerOff
    case reset
    case failure(String)
}

/// Where a vCPU's thread is.
enum VCPUThreadState: UInt32, Sendable {
    case parked = 0
    case running = 1
    case finished = 2
}

/// The thread of one vCPU: parked, running or finished, told by a mailbox and a kick.
///
/// Nothing is allocated or logged on the way from one KVM_RUN to the next; a look at one word tells whether there is mail.
final class VCPUThread: Sendable {
    typealias Work = @Sendable (VCPU) -> Void
    typealias Finishing = @Sendable (VCPU) throws(VMMError) -> Void

    private enum Goal { case park, run, finish }
    private struct Mail {
        var goal = Goal.park
        var work: Work?
        /// How long it watches for the next letter, after the work, before it sleeps.
        var watching = Duration.zero
        var beforeRunning: Finishing?
        var pings: UInt32 = 0
        /// Orders nobody has been told about yet.
        var orders = 0
    }

    let vcpu: VCPU
    private let handler: any ExitHandler
    private let name: String
    private let affinity: [UInt64]
    private let mail = Mutex(Mail())
    /// Changes with every letter.
    private let letters = Futex()
    private let bell: Bell
    /// By which ``bell`` means this thread.
    let bit: UInt32
    private let posted = Atomic<UInt32>(0)
    private let stateWord = Futex(VCPUThreadState.parked.rawValue)
    private let answered = Futex()
    /// CLOCK_MONOTONIC just before the first KVM_RUN after the last start.
    private let firstRun = Atomic<Int64>(0)
    private let thread = Mutex<SystemThread?>(nil)
    /// Where it may run when it does not have to stay on one CPU.
    private let home = Mutex<[UInt64]?>(nil)
    /// The kernel's id of it; 0 until it has begun.
    private let threadID = Atomic<Int32>(0)
    /// Opened when this thread has reached the goal it was given last.
    private let arrivals: Latch

    init(_ vcpu: VCPU, machine: String, affinity: [UInt64], handler: any ExitHandler, arrivals: Latch, bell: Bell) {
        self.vcpu = vcpu
        self.bell = bell
        bit = Bell.bit(of: vcpu.index)
        self.handler = handler
        self.affinity = affinity
        self.arrivals = arrivals
        let suffix = "/vcpu\(vcpu.index)"
        name = String(machine.prefix(max(1, 15 - suffix.utf8.count))) + suffix
    }

    var state: VCPUThreadState { VCPUThreadState(rawValue: stateWord.value) ?? .finished }
    var firstRunTime: Int64 { firstRun.load(ordering: .acquiring) }

    /// Starts the thread, parked.
    func start() throws(Errno) {
        let started = try SystemThread(name: name) { self.loop() }
        thread.withLock { $0 = started }
    }

    // Orders, from any thread. `prepareToRun` and `park` are each followed by exactly one arrival at the latch. Those that prepare need a ring of the bell.

    /// Goes on running the guest, when the bell rings. Arrives just before the first KVM_RUN.
    func prepareToRun() {
        leave {
            $0.goal = .run
            $0.orders += 1
        }
        if state == .running { leaveGuest() }
    }

    /// Leaves the guest and completes what was half done. Arrives parked.
    func park() {
        post {
            $0.goal = .park
            $0.orders += 1
        }
    }

    /// Leaves the guest, completes what was half done and does `work` at once. No arrival: `work` tells whoever waits.
    func park(then work: @escaping Work) {
        prepareToPark(then: work)
        rouse()
    }

    /// The same when the thread next leaves the guest, or is roused: it does not enter it again before.
    func prepareToPark(then work: @escaping Work) {
        leave {
            $0.goal = .park
            $0.work = work
        }
        vcpu.requestExit()
    }

    /// Has it look for letters at once. One of them is enough: a thread that changes its state now looks before it waits or enters the guest.
    func rouse() { if state == .running { leaveGuest() } else { bell.ring(bit) } }

    /// Does `work` when the bell rings, for one that is parked, which then watches for the next order before it sleeps.
    func prepare(watching: Duration, _ work: @escaping Work) {
        leave {
            $0.goal = .park
            $0.work = work
            $0.watching = watching
        }
    }

    /// Leaves the guest, completes what was half done, does `work`, and goes on as before. No arrival, and no promise: another order may
    /// come in its place.
    func interrupt(for work: @escaping Work) {
        post {
            $0.work = { vcpu in
                self.completePendingExits()
                work(vcpu)
            }
        }
    }

    /// What is left to do, once, when the vCPU is about to run. `nil`: nothing any more.
    func beforeRunning(_ finishing: Finishing?) { mail.withLock { $0.beforeRunning = finishing } }

    /// Gives it the CPU as soon as it wakes, for the time of a handover.
    func setUrgent(_ urgent: Bool, turn: Duration) {
        let id = threadID.load(ordering: .relaxed)
        if id != 0 { SystemThread.setUrgent(urgent, turn: turn, thread: id) }
    }

    /// Binds it to the CPUs that its guest is meant to have, or lets go of them.
    func setPinned(_ pinned: Bool) {
        goHome()
        let id = threadID.load(ordering: .relaxed)
        if id != 0, !affinity.isEmpty { try? SystemThread.setAffinity(pinned ? affinity : SystemThread.everyCPU, thread: id) }
    }

    /// Keeps it on one CPU until ``goHome()``. On this thread; where that is not possible it stays where it is.
    func stay(on cpu: UInt32) {
        let before = SystemThread.stay(on: cpu)
        home.withLock { $0 = $0 ?? before }  // told twice, it is on one CPU already
    }

    /// Lets it run where it could before ``stay(on:)``.
    func goHome() {
        let before = home.withLock { home in
            defer { home = nil }
            return home
        }
        if let before { try? SystemThread.setAffinity(before, thread: threadID.load(ordering: .relaxed)) }
    }

    /// Ends the thread.
    func finish() {
        post { $0.goal = .finish }
        thread.withLock { $0?.join() }
    }

    private func post(_ write: (inout Mail) -> Void) {
        leave(write)
        rouse()
    }

    private func leaveGuest() {
        vcpu.requestExit()
        thread.withLock { $0?.kick() }
    }

    private func leave(_ write: (inout Mail) -> Void) {
        mail.withLock { write(&$0) }
        // After the lock is free: whoever wakes takes it at once.
        letters.store(posted.add(1, ordering: .sequentiallyConsistent).newValue)
    }

    /// Whether the thread answers a kick in time. Guest progress is not required.
    func isAlive(within timeout: Duration) -> Bool {
        let before = answered.value
        post { $0.pings &+= 1 }
        return answered.waitUntil(not: before, timeout: timeout)
    }

    // The thread itself.

    private func loop() {
        SystemThread.allowKicks()
        threadID.store(SystemThread.currentID, ordering: .relaxed)
        // The first KVM_RUN starts a thread of the VM's: not in a blackout, and not bound to this one's CPU.
        _ = try? vcpu.completePendingExit()
        setPinned(true)
        var seen = letters.value &- 1
        var goal = Goal.park
        var pings: UInt32 = 0
        var watching = Duration.zero
        while goal != .finish {
            if letters.value != seen {
                seen = letters.value
                watching = takeMail(&goal, &pings)
                continue
            }
            switch goal {
            case .run:
                vcpu.clearExitRequest()
                if letters.value == seen, !step() {
                    goal = .park
                    mail.withLock { if $0.goal == .run { $0.goal = .park } }
                    stateWord.set(VCPUThreadState.parked.rawValue)
                }
            case .park, .finish:
                let rung = bell.value
                if !letters.watch(while: seen, for: watching) { bell.wait(since: rung, as: bit) }
                watching = .zero
            }
        }
        stateWord.set(VCPUThreadState.finished.rawValue)
    }

    /// Returns how long to watch for more.
    private func takeMail(_ goal: inout Goal, _ pings: inout UInt32) -> Duration {
        let letter = mail.withLock { mail in
            defer {
                mail.work = nil
                mail.watching = .zero
                mail.orders = 0
                if mail.goal == .run { mail.beforeRunning = nil }
            }
            return mail
        }
        if letter.pings != pings {
            pings = letter.pings
            answered.set(answered.value &+ 1)
        }
        if letter.goal == .run, goal != .run {
            do throws(VMMError) { try letter.beforeRunning?(vcpu) } catch { handler.guestEnded(.failure(error.description)) }
            firstRun.store(SystemClock.monotonic(), ordering: .releasing)
            stateWord.set(VCPUThreadState.running.rawValue)
        } else if letter.goal != .run, goal == .run {
            completePendingExits()
            stateWord.set(VCPUThreadState.parked.rawValue)
        }
        goal = letter.goal
        letter.work?(vcpu)
        for _ in 0..<letter.orders { arrivals.arrive() }
        return letter.watching
    }

    /// Runs the guest to its next exit and handles it; `false` when the guest cannot go on.
    private func step() -> Bool {
        do { return handle(try vcpu.runUntilExit()) } catch {
            handler.guestEnded(.failure("KVM_RUN of vCPU \(vcpu.index): \(error)"))
            return false
        }
    }

    fileprivate func completePendingExits() {
        while true {
            guard let exit = try? vcpu.completePendingExit(), exit != .interrupted else { return }
            if !handle(exit) { return }
        }
    }

    fileprivate func handle(_ exit: VCPUExit) -> Bool {
        switch exit {
        case .io(let access): handler.handle(access, of: vcpu)
        case .mmio(let access): handler.handle(access, of: vcpu)
        case .interrupted, .interruptWindow, .hlt: break
        case .shutdown:
            giveAccount("shut down (a triple fault), which resets the machine")
            return end(.reset)  // as it does a PC
        case .systemEvent(let type): return end(type == 1 ? .powerOff : type == 2 ? .reset : .failure("the guest reported a crash"))
        case .failEntry(let reason):
            giveAccount("could not enter the guest, reason \(hexadecimal(reason))")
            return end(.failure("vCPU \(vcpu.index) could not enter the guest, reason \(reason)"))
        case .internalError(let suberror, let detail):
            giveAccount("was given up by KVM, internal error \(suberror)")
            return end(.failure("KVM gave up on vCPU \(vcpu.index): internal error \(suberror), detail \(detail)"))
        case .debug: return end(.failure("vCPU \(vcpu.index) hit a debug exit nobody asked for"))
        case .other(let reason): return end(.failure("vCPU \(vcpu.index) left the guest for reason \(reason), which is not handled"))
        }
        return true
    }

    private func giveAccount(_ what: String) {
        writeToStandardError(VCPUAccount(what, of: vcpu, memory: handler.memory).description)
    }

    private func end(_ ending: GuestEnding) -> Bool {
        handler.guestEnded(ending)
        return false
    }
}

extension VCPUThread {
    /// Moves to the IRR what KVM moves there only on its way into the guest, expired LAPIC timers and overflown counters, so that it is in the state. On the
    /// vCPU's thread, parked: it has completed its exits then. Another one may do it whose vCPU has begun to need it after it was last looked at: KVM takes its time.
    func collectExpiredTimers() {
        while let exit = try? vcpu.collectExpiredTimers(), exit != .interrupted, handle(exit) { completePendingExits() }
    }
}
