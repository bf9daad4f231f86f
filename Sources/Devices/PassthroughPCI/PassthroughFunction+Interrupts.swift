internal import Synchronization

/// From the device's events to the guest's interrupts.
///
/// An event interrupts the guest as long as it is attached; otherwise it counts, and what it has counted is delivered, as one interrupt, when
/// it is attached. So a vector that is masked is one that is detached, its pending bit is whether its event has counted, and a handover is
/// nothing but all of them detached for a while.
extension PassthroughFunction {
    /// After the guest has changed MSI or MSI-X: one way to interrupt at most, as in hardware.
    func chooseMode(_ live: inout Live) {
        let wanted = wantedMode(live)
        if wanted != live.mode {
            detachVectors(&live)
            detachLine(&live)
            device.disarm(live.mode)
            for vector in live.attached.indices { host.forget(vector) }
            let count =
                switch wanted {
                case .none: 0
                case .line: 1
                case .message: messageCount(live)
                case .extended: shape.extended?.count ?? 0
                }
            live.mode = wanted == .none || device.arm(wanted, count: count) ? wanted : .none
        }
        update(live.attached.indices, &live)
        attachLine(&live)
    }

    private func wantedMode(_ live: borrowing Live) -> InterruptMode {
        if let extended = shape.extended, live.space.read(at: extended.control, size: 2) & 0x8000 != 0 { return .extended }
        if let messages = shape.messages, live.space.read(at: messages.control, size: 2) & 1 != 0 { return .message }
        return shape.hasLine ? .line : .none
    }

    /// How many vectors the guest has enabled for MSI: Multiple Message Enable, and no more than there are.
    private func messageCount(_ live: borrowing Live) -> Int {
        guard let messages = shape.messages else { return 0 }
        return min(messages.count, 1 << Int(live.space.read(at: messages.control, size: 2) >> 4 & 7))
    }

    /// Where a vector leads that is not masked; nil for one that may not interrupt now.
    private func message(_ vector: Int, _ live: borrowing Live) -> PCIMessage? {
        switch live.mode {
        case .none, .line: return nil
        case .message:
            guard let messages = shape.messages, vector < messageCount(live) else { return nil }
            let high = messages.is64Bit ? UInt64(live.space.read(at: messages.address + 4, size: 4)) << 32 : 0
            let data = live.space.read(at: messages.data, size: 2)
            return PCIMessage(
                address: high | UInt64(live.space.read(at: messages.address, size: 4)),
                data: data & ~UInt32(messageCount(live) - 1) | UInt32(vector))
        case .extended:
            guard let extended = shape.extended, vector < extended.count, live.space.read(at: extended.control, size: 2) & 0x4000 == 0,
                live.table[4 * vector + 3] & Self.maskedVector == 0
            else { return nil }
            return PCIMessage(
                address: UInt64(live.table[4 * vector]) | UInt64(live.table[4 * vector + 1]) << 32, data: live.table[4 * vector + 2])
        }
    }

    /// Attaches, detaches and leads elsewhere what the guest's registers ask for.
    private func update(_ vectors: Range<Int>, _ live: inout Live) {
        var wanted: [Int] = []
        for vector in vectors {
            if message(vector, live) != nil {
                wanted.append(vector)
            } else if live.attached[vector] {
                host.detach(vector)
                live.attached[vector] = false
            }
        }
        route(wanted, &live)
        if live.isHeld { return }
        for vector in wanted where !live.attached[vector] { live.attached[vector] = host.attach(vector) }
    }

    private func route(_ vectors: [Int], _ live: inout Live) {
        var changes: [VectorMessage] = []
        for vector in vectors {
            guard let message = message(vector, live), message != live.routes[vector] else { continue }
            live.routes[vector] = message
            changes.append(VectorMessage(vector: vector, message: message))
        }
        if !changes.isEmpty { host.route(changes) }
    }

    /// Where vectors lead, after a state has come.
    func routeAll(_ live: inout Live) { route(Array(live.attached.indices), &live) }

    private func attachLine(_ live: inout Live) {
        if live.mode == .line, !live.isHeld, !live.isLineAttached { live.isLineAttached = host.attachLine() }
    }

    private func detachVectors(_ live: inout Live) {
        for vector in live.attached.indices where live.attached[vector] {
            host.detach(vector)
            live.attached[vector] = false
        }
    }

    private func detachLine(_ live: inout Live) {
        if live.isLineAttached { host.detachLine() }
        live.isLineAttached = false
    }

    /// Events of messages only count from now on.
    func hold(_ live: inout Live) {
        live.isHeld = true
        detachVectors(&live)
    }

    /// The line's, too.
    func holdLine(_ live: inout Live) {
        hold(&live)
        detachLine(&live)
    }

    /// Events interrupt again; what they have counted does so at once.
    func release(_ live: inout Live) {
        guard live.isHeld else { return }
        live.isHeld = false
        update(live.attached.indices, &live)
        guard live.mode == .line, !live.isLineAttached else { return }
        // An interrupt that the guest's pin had not passed on is forgotten as it is detached: then the line is masked for ever. What waits, or
        // is in service, is going to be ended: unmasked now as well, it could fire twice for one reason.
        // Before it is attached, so that what fires now and what fires for that are one count.
        if !host.isWaiting(0), !host.isLineInService, !live.space.command.contains(.interruptDisable) { device.unmaskLine() }
        attachLine(&live)
    }
}

extension PassthroughFunction {
    /// Loads from a BAR. MSI-X's table and pending bits are answered here.
    func read(bar: Int, at offset: Int, size: Int) -> UInt64 {
        if let extended = shape.extended {
            if bar == extended.tableBar, extended.table.contains(offset) {
                return live.withLock { live in readTable(offset - extended.table.lowerBound, size, live) }
            }
            if bar == extended.pendingBar, extended.pending.contains(offset) {
                return live.withLock { live in readPending(offset - extended.pending.lowerBound, size, live) }
            }
        }
        return device.read(bar: bar, at: offset, size: size)
    }

    /// Stores to a BAR.
    func write(_ value: UInt64, bar: Int, at offset: Int, size: Int) {
        if let extended = shape.extended {
            if bar == extended.tableBar, extended.table.contains(offset) {
                return writeTable(value, offset - extended.table.lowerBound, size)
            }
            if bar == extended.pendingBar, extended.pending.contains(offset) { return }
        }
        device.write(value, bar: bar, at: offset, size: size)
    }

    private func readTable(_ offset: Int, _ size: Int, _ live: borrowing Live) -> UInt64 {
        let index = offset / 4
        let low = UInt64(live.table[index])
        if size == 8 { return low | UInt64(index + 1 < live.table.count ? live.table[index + 1] : 0) << 32 }
        return low >> UInt64(8 * (offset % 4))
    }

    /// Whole words only (§6.8.2); anything else is ignored.
    private func writeTable(_ value: UInt64, _ offset: Int, _ size: Int) {
        guard size == 4 || size == 8, offset % 4 == 0 else { return }
        live.withLock { live in
            for index in 0..<size / 4 where offset / 4 + index < live.table.count {
                let place = offset / 4 + index
                let word = UInt32(truncatingIfNeeded: value >> UInt64(32 * index))
                switch place % 4 {
                case 0: live.table[place] = word & ~3
                case 3: live.table[place] = word & Self.maskedVector
                default: live.table[place] = word
                }
            }
            let last = min(live.table.count / 4 - 1, (offset + size - 1) / 16)
            update(offset / 16..<last + 1, &live)
        }
    }

    /// What a detached vector has counted. An attached one has nothing pending: it interrupts at once.
    private func readPending(_ offset: Int, _ size: Int, _ live: borrowing Live) -> UInt64 {
        guard live.mode == .extended, let extended = shape.extended else { return 0 }
        var bits: UInt64 = 0
        for bit in 0..<8 * size {
            let vector = 8 * offset + bit
            guard vector < extended.count else { break }
            if !live.attached[vector], host.isWaiting(vector) { bits |= 1 << UInt64(bit) }
        }
        return bits
    }
}
