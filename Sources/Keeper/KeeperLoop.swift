internal import LinuxSystem
package import SystemPackage

/// Holds descriptors and commit words for one host and keeps `batond` running.
///
/// One thread, four requests, no parsing beyond their fixed layout. `batond` may die or be replaced at any time; what it deposited stays.
package struct KeeperLoop: ~Copyable {
    private var custody = Custody()
    private let program: String
    private let arguments: [String]
    private let signals: SignalDescriptor
    private var buffer = [UInt8](repeating: 0, count: KeeperRequest.maximumLength)

    /// `program` is the path of `batond`, executed anew for every start; `arguments` are its own.
    package init(program: String, arguments: [String]) throws(Errno) {
        self.program = program
        self.arguments = arguments
        CurrentProcess.ignore(.pipe)
        try CurrentProcess.becomeSubreaper()  // workers outlive batond and are reaped here
        signals = try SignalDescriptor([.terminate, .interrupt, .child])
    }

    /// Serves until told to end by SIGTERM or SIGINT, which `batond` is told first. The exit status of the program.
    package mutating func run() -> Int32 {
        var pause: Duration = .milliseconds(20)
        while true {
            let began = SystemClock.monotonic()
            switch serveOneLife() {
            case .ended(let status): return status
            case .died(let how):
                writeToStandardError("baton-keep: batond \(how); \(custody.count) descriptors stay in custody; starting it again")
            case .notStarted(let reason):
                writeToStandardError("baton-keep: cannot start \(program): \(reason); trying again")
            }
            // A batond that lived for a while starts again at once; one that keeps dying is started ever more slowly.
            let lived = SystemClock.monotonic() - began
            pause = lived > 10_000_000_000 ? .milliseconds(20) : min(pause * 2, .seconds(5))
            if waitForEndRequest(pause) { return 0 }
        }
    }

    private enum LifeEnd {
        case ended(status: Int32)
        case died(ProcessExit)
        case notStarted(String)
    }

    private mutating func serveOneLife() -> LifeEnd {
        do {
            let ends = try UnixSocket.sequencedPair()
            let batondEnd = ends.far
            let socket = ends.takeNear()
            let image = try OwnedDescriptor.open(program, followingLinks: true)
            var request = SpawnRequest(
                arguments: [program] + arguments + ["--custody", "3"],
                descriptors: try standardStreams() + [batondEnd])
            request.environment = ProcessEnvironment.passedOn
            request.noNewPrivileges = false  // batond regains the bounding set at exec and then locks itself
            request.ownGroup = false
            request.keepsCapabilities = true
            let batond = try request.spawn(executing: image)
            return serve(socket, batond)
        } catch {
            return .notStarted("\(error)")
        }
    }

    private func standardStreams() throws(Errno) -> [SharedDescriptor] {
        var streams: [SharedDescriptor] = []
        for number: CInt in 0...2 { streams.append(SharedDescriptor(try OwnedDescriptor.duplicate(ofStandard: number))) }
        return streams
    }

    private mutating func serve(_ socket: borrowing UnixSocket, _ batond: borrowing SpawnedProcess) -> LifeEnd {
        var ending = false
        while true {
            var poll = Poll([
                (socket.descriptor.number, .readable), (batond.process.descriptor.number, .readable), (signals.descriptor.number, .readable),
            ])
            _ = try? poll.wait(timeout: nil)
            if !poll.result(at: 0).isEmpty { answerAll(socket) }
            CurrentProcess.reapOrphans(except: batond.pid)
            if poll.result(at: 2).contains(.readable), takeSignals() {
                ending = true
                try? batond.process.send(.terminate)
            }
            if !poll.result(at: 1).isEmpty {
                let how = batond.process.reap() ?? .unknown
                guard ending else { return .died(how) }
                if case .exited(let status) = how { return .ended(status: status) }
                return .ended(status: 1)
            }
        }
    }

    /// Whether one of the waiting signals asks for the end.
    private func takeSignals() -> Bool {
        var end = false
        while let signal = signals.take() {
            if signal == .terminate || signal == .interrupt { end = true }
        }
        return end
    }

    private func waitForEndRequest(_ pause: Duration) -> Bool {
        guard (try? Poll.one(signals.descriptor.number, timeout: pause)) ?? false else { return false }
        return takeSignals()
    }

    private mutating func answerAll(_ socket: borrowing UnixSocket) {
        while true {
            let length: Int
            let descriptors: [SharedDescriptor]
            do {
                (length, descriptors) = try socket.receive(into: &buffer, waiting: false)
            } catch {
                return  // nothing more, or cut off: batond's end is seen on its pidfd
            }
            if length == 0 { return }
            answer(socket, length: length, descriptors)
        }
    }

    private mutating func answer(_ socket: borrowing UnixSocket, length: Int, _ descriptors: [SharedDescriptor]) {
        let (bytes, lent) = custody.answer(buffer, length: length, descriptors)
        // A batond that does not read its answers is about to be seen dead; it must not make us wait.
        try? socket.send(bytes.span, descriptors: lent, waiting: false)
    }
}
