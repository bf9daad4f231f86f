internal import LinuxSystem
internal import SystemPackage

/// Somebody attached to a serial console. What it does not take at once waits for it here, up to ``limit``.
struct ConsoleClient: Sendable {
    let connection: SharedDescriptor
    private var waiting: [UInt8] = []
    private(set) var isGone = false
    /// It sends nothing more, and may still take.
    private(set) var hasSentAll = false

    /// A client that lets this much pile up is dropped: the guest's console waits for nobody.
    static let limit = 1 << 20

    init(_ connection: SharedDescriptor) {
        self.connection = connection
    }

    var isBehind: Bool { !waiting.isEmpty }

    /// What to wait for. `guestTakes`: whether its input can go anywhere.
    func interest(guestTakes: Bool) -> Readiness {
        var interest: Readiness = []
        if guestTakes && !hasSentAll { interest.insert(.readable) }
        if isBehind { interest.insert(.writable) }
        return interest
    }

    mutating func give(_ bytes: [UInt8]) {
        waiting += bytes
        flush()
        if waiting.count > Self.limit { isGone = true }
    }

    mutating func flush() {
        while !waiting.isEmpty, !isGone {
            do {
                waiting.removeFirst(try connection.descriptor.write(waiting.span))
            } catch Errno.wouldBlock {
                return
            } catch {
                isGone = true
            }
        }
    }

    /// Passes its input on to the guest as far as the guest takes it; what it does not take stays where it is. Whether it took everything.
    mutating func passInput(to stream: SharedDescriptor) -> Bool {
        if hasSentAll { return true }
        do {
            let bytes = try UnixSocket.peek(connection.descriptor, upTo: 4096)
            if bytes.isEmpty {
                hasSentAll = true
                return true
            }
            guard let taken = try? stream.descriptor.write(bytes.span) else { return false }
            _ = try connection.descriptor.read(upTo: taken)
            return taken == bytes.count
        } catch Errno.wouldBlock {
            return true
        } catch {
            isGone = true
            return true
        }
    }

    /// Takes notice of a client that closed its side. `guestTakes`: whether the rest of its input can go anywhere.
    mutating func lookForEnd(guestTakes: Bool) {
        var poll = Poll([(connection.number, [])])
        _ = try? poll.wait(timeout: .zero)
        if !poll.result(at: 0).isDisjoint(with: [.hungUp, .failed]) { isGone = isGone || hasSentAll || !guestTakes }
    }
}
