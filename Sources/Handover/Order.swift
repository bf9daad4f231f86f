package import Wire

/// What the supervisor tells a worker. Every order is answered by exactly one ``Report`` with its sequence number and may be repeated.
package enum Order: Sendable, Equatable {
    /// Descriptors come with this message, one per entry, in this order. Answer: `lent` with how many it holds now, of `total`.
    case lend(entries: [ManifestEntry], total: UInt32)
    /// Power the machine on. Answer: `running`.
    case start(StartSpecification)
    /// Export the blueprint and promise to write these section versions. Answer: `blueprint`.
    case exportBlueprint(versions: [SectionVersion])
    /// Build the machine of this blueprint beside the running one; touch nothing shared. Answer: `prepared`.
    case prepare(blueprint: [UInt8])
    /// Stop taking requests and drain what is under way, guest running. Answer: `settled`, or a refusal that names the device when that
    /// takes longer than `holdNanoseconds`; then everything goes on as before.
    case settle(holdNanoseconds: UInt64)
    /// Stop the guest, write the checkpoint at the promised versions, freeze. The freeze ends by itself after `freezeNanoseconds`. Answer: `saved`.
    case save(freezeNanoseconds: UInt64)
    /// Copy, verify and decode the checkpoint of `length` bytes whose digest this is; stay stopped. Answer: `loaded`.
    case load(length: UInt64, digest: UInt32)
    /// The supervisor's commit, given in advance: as soon as the commit word says that the outgoing worker has frozen, which is waited for at most
    /// `patienceNanoseconds`, `load`; if that went well, commit by the word, and run as by `grant`. For images with the feature
    /// ``WorkerFeature/takesOver``. Answer: `tookOver`.
    case takeOver(patienceNanoseconds: UInt64)
    /// Do once more, while the guest runs, what the blackout takes, so that it is in the processor's caches. A worker whose guest runs saves, into the
    /// second half of the checkpoint's memory, and says on which CPU. A prepared one goes to this CPU, which the guest is about to leave, stays there until
    /// it runs the guest, and loads what its rehearsal has saved; its vCPUs are given what the other one has left there, if it has. For images with the
    /// feature ``WorkerFeature/takesOver``. Answer: `practised`.
    case practise(cpu: UInt32?)
    /// Run. Answer: `running`.
    case grant
    /// Abort: thaw, if the commit word can still be won, and run on. Answer: `resumed`.
    case resume
    /// Take over DMA addresses and accounting. Answer: `done`.
    case takeAddresses
    /// Stop the vCPUs, keep everything. Answer: `done`.
    case pause
    /// End a pause. Answer: `done`.
    case unpause
    /// Answer: `health`.
    case health
    /// Answer: `location`.
    case locate
    /// Ask the guest to power off. Answer: `done`.
    case requestPowerOff
    /// Digest of what the guest sees of its machine. Answer: `fingerprint`.
    case fingerprint
    /// End the process. Answer: none.
    case retire
}

extension Order {
    package var kind: UInt16 {
        switch self {
        case .lend: 1
        case .start: 2
        case .exportBlueprint: 3
        case .prepare: 4
        case .settle: 5
        case .save: 6
        case .load: 7
        case .grant: 8
        case .resume: 9
        case .takeAddresses: 10
        case .pause: 11
        case .unpause: 12
        case .health: 13
        case .locate: 14
        case .requestPowerOff: 15
        case .fingerprint: 16
        case .retire: 17
        case .practise: 19
        case .takeOver: 20
        }
    }

    /// How many descriptors travel with this order.
    package var descriptorCount: Int {
        if case .lend(let entries, _) = self { entries.count } else { 0 }
    }

    package func encodePayload(to writer: inout WireWriter) {
        switch self {
        case .lend(let entries, let total):
            writer.list(entries) { writer, entry in entry.encode(to: &writer) }
            writer.u32(total)
        case .start(let specification): specification.encode(to: &writer)
        case .exportBlueprint(let versions): writer.list(versions) { writer, version in version.encode(to: &writer) }
        case .prepare(let blueprint): writer.blob(blueprint)
        case .save(let freezeNanoseconds): writer.u64(freezeNanoseconds)
        case .load(let length, let digest):
            writer.u64(length)
            writer.u32(digest)
        case .settle(let holdNanoseconds): writer.u64(holdNanoseconds)
        case .takeOver(let patienceNanoseconds): writer.u64(patienceNanoseconds)
        case .practise(let cpu): writer.optional(cpu) { writer, cpu in writer.u32(cpu) }
        case .grant, .resume, .takeAddresses, .pause, .unpause, .health, .locate, .requestPowerOff, .fingerprint, .retire: break
        }
    }

    /// Reads the payload of an order of `kind`, all of it.
    package init(kind: UInt16, payload reader: inout WireReader) throws(WireError) {
        switch kind {
        case 1:
            let entries = try reader.list(limit: 253) { reader throws(WireError) in try ManifestEntry(from: &reader) }
            self = .lend(entries: entries, total: try reader.u32())
        case 2: self = .start(try StartSpecification(from: &reader))
        case 3: self = .exportBlueprint(versions: try reader.list(limit: 256) { reader throws(WireError) in try SectionVersion(from: &reader) })
        case 4: self = .prepare(blueprint: try reader.blob(limit: Envelope.maximumLength))
        case 5: self = .settle(holdNanoseconds: try reader.u64())
        case 6: self = .save(freezeNanoseconds: try reader.u64())
        case 7: self = .load(length: try reader.u64(), digest: try reader.u32())
        case 8: self = .grant
        case 9: self = .resume
        case 10: self = .takeAddresses
        case 11: self = .pause
        case 12: self = .unpause
        case 13: self = .health
        case 14: self = .locate
        case 15: self = .requestPowerOff
        case 16: self = .fingerprint
        case 17: self = .retire
        case 19: self = .practise(cpu: try reader.optional { reader throws(WireError) in try reader.u32() })
        case 20: self = .takeOver(patienceNanoseconds: try reader.u64())
        default: throw .invalid(offset: 6, field: "the kind of an order", value: UInt64(kind))
        }
        try reader.finish()
    }
}

/// What an image may be able to do, beyond what every image does: names in its description.
package enum WorkerFeature {
    /// It wakes whoever waits for the commit word as it freezes, and takes ``Order/practise(cpu:)`` and ``Order/takeOver(patienceNanoseconds:)``.
    package static let takesOver = "take-over"
    /// It reads blueprints that say where the interrupts of passed-through devices lead, and writes one where ``SectionVersion/blueprintWithMessages``
    /// is among the versions of ``Order/exportBlueprint(versions:)``.
    package static let knowsMessages = "blueprint-4"
}
