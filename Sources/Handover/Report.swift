package import Wire

/// What a worker tells the supervisor.
package enum Report: Sendable, Equatable {
    /// First message of a session.
    case hello(WorkerIdentity)
    case lent(held: UInt32)
    case blueprint([UInt8])
    /// Built, and how much RAM has been populated (bytes).
    case prepared(populated: UInt64)
    /// What the blackout takes has been done once more. `cpu`: on which the first vCPU runs, from a worker that runs a guest and knows.
    case practised(cpu: UInt32?)
    /// Back ends rest. CLOCK_MONOTONIC nanoseconds: when the first stopped taking requests, which is when the I/O hold begins, and when
    /// nothing was under way any more.
    case settled(began: Int64, drained: Int64)
    /// Stopped, written and frozen. All times CLOCK_MONOTONIC nanoseconds.
    case saved(length: UInt64, digest: UInt32, parkBegan: Int64, parked: Int64, saved: Int64)
    case loaded(began: Int64, loaded: Int64)
    /// vCPUs run: when the grant was taken and when the first vCPU entered KVM_RUN.
    case running(granted: Int64, firstRun: Int64)
    /// Loaded, committed by the word and run, all CLOCK_MONOTONIC nanoseconds: when loading began and ended, when the commit word was won, when the
    /// first vCPU entered KVM_RUN.
    case tookOver(began: Int64, loaded: Int64, committed: Int64, firstRun: Int64)
    /// The freeze has ended and the guest runs on; `overdue` when the worker ended it by itself.
    case resumed(overdue: Bool)
    case done
    /// Each vCPU answered a kick in time, or why the worker is not well.
    case health(alive: UInt32, vcpus: UInt32, problem: String?)
    case location(WorkerPhase)
    case fingerprint([UInt8])
    /// The order cannot be carried out; nothing has changed.
    case refused(reason: String)

    // Nobody asked for these.
    /// The guest switched its machine off.
    case poweredOff
    /// The guest asked for a reset; the worker has stopped its vCPUs and will be replaced by a cold start.
    case resetRequested
    /// The worker cannot run the guest any more.
    case failed(reason: String)
}

/// Who a worker says it is.
package struct WorkerIdentity: Sendable, Equatable {
    package let version: String
    package let protocolVersion: UInt16
    package let pid: Int32
    package let models: [String]
    package let sections: [SectionRange]

    package init(version: String, protocolVersion: UInt16 = Envelope.protocolVersion, pid: Int32, models: [String], sections: [SectionRange]) {
        self.version = version
        self.protocolVersion = protocolVersion
        self.pid = pid
        self.models = models
        self.sections = sections
    }

    init(from reader: inout WireReader) throws(WireError) {
        version = try reader.string(limit: 64)
        protocolVersion = try reader.u16()
        pid = Int32(bitPattern: try reader.u32())
        models = try reader.list(limit: 32) { reader throws(WireError) in try reader.string(limit: 32) }
        sections = try reader.list(limit: 256) { reader throws(WireError) in try SectionRange(from: &reader) }
    }

    func encode(to writer: inout WireWriter) {
        writer.string(version)
        writer.u16(protocolVersion)
        writer.u32(UInt32(bitPattern: pid))
        writer.list(models) { writer, model in writer.string(model) }
        writer.list(sections) { writer, section in section.encode(to: &writer) }
    }
}

/// Where in its life a worker is.
package enum WorkerPhase: UInt16, Sendable, CaseIterable {
    case waiting = 1, preparing, prepared, running, paused, settled, frozen, loading, loaded, stopped, failed
}

extension Report {
    package var kind: UInt16 {
        switch self {
        case .hello: 101
        case .lent: 102
        case .blueprint: 103
        case .prepared: 104
        case .settled: 105
        case .saved: 106
        case .loaded: 107
        case .running: 108
        case .resumed: 109
        case .done: 110
        case .health: 111
        case .location: 112
        case .fingerprint: 113
        case .refused: 114
        case .poweredOff: 115
        case .resetRequested: 116
        case .failed: 117
        case .practised: 118
        case .tookOver: 119
        }
    }

    package func encodePayload(to writer: inout WireWriter) {
        switch self {
        case .hello(let identity): identity.encode(to: &writer)
        case .lent(let held): writer.u32(held)
        case .blueprint(let bytes), .fingerprint(let bytes): writer.blob(bytes)
        case .prepared(let populated): writer.u64(populated)
        case .practised(let cpu): writer.optional(cpu) { writer, cpu in writer.u32(cpu) }
        case .settled(let began, let drained):
            writer.i64(began)
            writer.i64(drained)
        case .saved(let length, let digest, let parkBegan, let parked, let saved):
            writer.u64(length)
            writer.u32(digest)
            for time in [parkBegan, parked, saved] { writer.i64(time) }
        case .loaded(let began, let loaded):
            writer.i64(began)
            writer.i64(loaded)
        case .running(let granted, let firstRun):
            writer.i64(granted)
            writer.i64(firstRun)
        case .tookOver(let began, let loaded, let committed, let firstRun):
            for time in [began, loaded, committed, firstRun] { writer.i64(time) }
        case .resumed(let overdue): writer.bool(overdue)
        case .health(let alive, let vcpus, let problem):
            writer.u32(alive)
            writer.u32(vcpus)
            writer.optional(problem) { writer, problem in writer.string(problem) }
        case .location(let phase): writer.u16(phase.rawValue)
        case .refused(let reason), .failed(let reason): writer.string(String(reason.prefix(1000)))
        case .done, .poweredOff, .resetRequested: break
        }
    }

    /// Reads the payload of a report of `kind`, all of it.
    package init(kind: UInt16, payload reader: inout WireReader) throws(WireError) {
        switch kind {
        case 101: self = .hello(try WorkerIdentity(from: &reader))
        case 102: self = .lent(held: try reader.u32())
        case 103: self = .blueprint(try reader.blob(limit: Envelope.maximumLength))
        case 104: self = .prepared(populated: try reader.u64())
        case 105: self = .settled(began: try reader.i64(), drained: try reader.i64())
        case 106:
            self = .saved(
                length: try reader.u64(), digest: try reader.u32(), parkBegan: try reader.i64(), parked: try reader.i64(), saved: try reader.i64())
        case 107: self = .loaded(began: try reader.i64(), loaded: try reader.i64())
        case 108: self = .running(granted: try reader.i64(), firstRun: try reader.i64())
        case 109: self = .resumed(overdue: try reader.bool())
        case 110: self = .done
        case 111:
            self = .health(
                alive: try reader.u32(), vcpus: try reader.u32(), problem: try reader.optional { reader throws(WireError) in try reader.string() })
        case 112:
            let start = reader.offset
            let raw = try reader.u16()
            guard let phase = WorkerPhase(rawValue: raw) else { throw .invalid(offset: start, field: "a worker's phase", value: UInt64(raw)) }
            self = .location(phase)
        case 113: self = .fingerprint(try reader.blob(limit: 64))
        case 114: self = .refused(reason: try reader.string())
        case 115: self = .poweredOff
        case 116: self = .resetRequested
        case 117: self = .failed(reason: try reader.string())
        case 118: self = .practised(cpu: try reader.optional { reader throws(WireError) in try reader.u32() })
        case 119:
            self = .tookOver(
                began: try reader.i64(), loaded: try reader.i64(), committed: try reader.i64(), firstRun: try reader.i64())
        default: throw .invalid(offset: 6, field: "the kind of a report", value: UInt64(kind))
        }
        try reader.finish()
    }
}
