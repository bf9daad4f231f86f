internal import Synchronization
internal import Wire

/// What takes message-signalled interrupts: KVM (KVM_SIGNAL_MSI), or a recorder in tests.
package protocol MessageSink: AnyObject, Sendable {
    /// Sends one. On any thread, with locks of a device held; does not block.
    func send(address: UInt64, data: UInt32)
}

/// MSI-X vectors of a function with their masks (PCI Local Bus 3.0 §6.8.2): table and pending bits.
///
/// A vector that is masked is remembered and sent when it is unmasked. While MSI-X is disabled nothing is sent or remembered.
package final class MSIXTable: Sendable {
    private struct Live {
        /// Four words a vector: address low, address high, data, control.
        var words: [UInt32]
        /// One bit a vector.
        var pending: [UInt64]
        var isEnabled = false
        var isMasked = false
    }

    package let count: Int
    private let sink: any MessageSink
    private let live: Mutex<Live>

    private static let masked: UInt32 = 1

    /// - Parameter count: 1…2048 vectors.
    package init(count: Int, sink: any MessageSink) {
        precondition((1...2048).contains(count), "MSI-X has 1 to 2048 vectors")
        self.count = count
        self.sink = sink
        live = Mutex(Live(words: Self.emptyTable(count), pending: [UInt64](repeating: 0, count: (count + 63) / 64)))
    }

    private static func emptyTable(_ count: Int) -> [UInt32] { (0..<4 * count).map { $0 % 4 == 3 ? masked : 0 } }

    /// Bytes of the table.
    package var tableSize: Int { 16 * count }
    /// Bytes of the pending bits.
    package var pendingSize: Int { (count + 63) / 64 * 8 }

    /// Interrupts by a vector, now or when it may be. A vector that does not exist interrupts nobody.
    package func signal(_ vector: Int) {
        guard vector < count else { return }
        live.withLock { live in
            guard live.isEnabled else { return }
            if live.isMasked || live.words[4 * vector + 3] & Self.masked != 0 {
                live.pending[vector / 64] |= 1 << UInt64(vector % 64)
            } else {
                send(vector, live)
            }
        }
    }

    // With the lock held: after a mask has been set nothing is under way any more.
    private func send(_ vector: Int, _ live: borrowing Live) {
        let address = UInt64(live.words[4 * vector]) | UInt64(live.words[4 * vector + 1]) << 32
        sink.send(address: address, data: live.words[4 * vector + 2])
    }

    private func sendPending(_ vector: Int, _ live: inout Live) {
        let bit: UInt64 = 1 << UInt64(vector % 64)
        guard live.isEnabled, !live.isMasked, live.pending[vector / 64] & bit != 0, live.words[4 * vector + 3] & Self.masked == 0 else { return }
        live.pending[vector / 64] &= ~bit
        send(vector, live)
    }

    /// The guest has written the message control register.
    package func setControl(isEnabled: Bool, isMasked: Bool) {
        live.withLock { live in
            live.isEnabled = isEnabled
            live.isMasked = isMasked
            if !isEnabled { for index in live.pending.indices { live.pending[index] = 0 } }
            for vector in 0..<count where live.pending[vector / 64] != 0 { sendPending(vector, &live) }
        }
    }

    package var isEnabled: Bool { live.withLock { $0.isEnabled } }

    /// Reads the table; what is beyond its end is 0.
    package func readTable(at offset: Int, size: Int) -> UInt64 {
        live.withLock { live in Self.read(offset, size) { $0 < live.words.count ? live.words[$0] : 0 } }
    }

    /// Reads the pending bits; what is beyond their end is 0.
    package func readPending(at offset: Int, size: Int) -> UInt64 {
        live.withLock { live in
            Self.read(offset, size) { $0 / 2 < live.pending.count ? UInt32(truncatingIfNeeded: live.pending[$0 / 2] >> UInt64(32 * ($0 % 2))) : 0 }
        }
    }

    private static func read(_ offset: Int, _ size: Int, _ word: (Int) -> UInt32) -> UInt64 {
        if size == 8 { return UInt64(word(offset / 4)) | UInt64(word(offset / 4 + 1)) << 32 }
        return UInt64(word(offset / 4) >> UInt32(8 * (offset % 4)))
    }

    /// Writes whole words, as §6.8.2 demands; anything else is ignored.
    package func writeTable(_ value: UInt64, at offset: Int, size: Int) {
        guard size == 4 || size == 8, offset % 4 == 0 else { return }
        live.withLock { live in
            for index in 0..<size / 4 {
                let place = offset / 4 + index
                guard place < live.words.count else { return }
                let word = UInt32(truncatingIfNeeded: value >> UInt64(32 * index))
                switch place % 4 {
                case 0: live.words[place] = word & ~3
                case 3: live.words[place] = word & Self.masked
                default: live.words[place] = word
                }
            }
            let last = min(count - 1, (offset + size - 1) / 16)
            for vector in offset / 16...max(offset / 16, last) where vector < count { sendPending(vector, &live) }
        }
    }

    /// Table and pending bits.
    package var state: MSIXState {
        live.withLock { MSIXState(words: $0.words, pending: $0.pending) }
    }

    /// Takes over a state and the message control register. Nothing is sent: what is pending is masked.
    package func restore(_ state: MSIXState, isEnabled: Bool, isMasked: Bool) {
        live.withLock { live in
            if state.words.count == live.words.count { live.words = state.words }
            if state.pending.count == live.pending.count { live.pending = state.pending }
            live.isEnabled = isEnabled
            live.isMasked = isMasked
        }
    }
}

/// The stored state of ``MSIXTable``.
package struct MSIXState: Sendable, Equatable {
    package var words: [UInt32]
    package var pending: [UInt64]

    package init(words: [UInt32], pending: [UInt64]) {
        self.words = words
        self.pending = pending
    }

    func encode(to writer: inout WireWriter) {
        writer.list(words) { $0.u32($1) }
        writer.list(pending) { $0.u64($1) }
    }

    init(from reader: inout WireReader) throws(WireError) {
        let start = reader.offset
        words = try reader.list(limit: 4 * 2048) { reader throws(WireError) in try reader.u32() }
        pending = try reader.list(limit: 32) { reader throws(WireError) in try reader.u64() }
        if words.count % 4 != 0 || pending.count != (words.count / 4 + 63) / 64 {
            throw .invalid(offset: start, field: "the words of an MSI-X table", value: UInt64(words.count))
        }
    }
}
