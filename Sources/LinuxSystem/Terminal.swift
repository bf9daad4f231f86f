internal import CLinux
package import SystemPackage

/// The three streams every program begins with.
package enum StandardStream: CInt, Sendable {
    case input = 0
    case output = 1
    case error = 2

    /// Whether a person's terminal is behind it.
    package var isTerminal: Bool { cl_is_terminal(rawValue) == 1 }

    /// Columns of that terminal; `nil` when there is none or it does not say.
    package var width: Int? {
        let columns = cl_terminal_width(rawValue)
        return columns > 0 ? Int(columns) : nil
    }

    /// Reads once; empty at the end.
    package func read(upTo count: Int) throws(Errno) -> [UInt8] {
        try borrowed { stream throws(Errno) in try stream.read(upTo: count) }
    }

    /// Writes everything.
    package func write(_ bytes: [UInt8]) throws(Errno) {
        try borrowed { stream throws(Errno) in try stream.writeAll(bytes) }
    }

    /// The stream as an owned value for one call; it stays open.
    private func borrowed<Result>(_ body: (borrowing OwnedDescriptor) throws(Errno) -> Result) throws(Errno) -> Result {
        let stream = OwnedDescriptor(owning: rawValue)
        do throws(Errno) {
            let result = try body(stream)
            _ = stream.relinquish()
            return result
        } catch {
            _ = stream.relinquish()
            throw error
        }
    }
}

/// A terminal in raw mode: every byte passes as typed. Dropping it puts the terminal back.
package struct RawTerminal: ~Copyable {
    private let stream: StandardStream
    private var before = cl_terminal_mode()

    package init(_ stream: StandardStream) throws(Errno) {
        self.stream = stream
        // SAFETY: the shim fills one structure.
        try check(unsafe cl_terminal_raw(stream.rawValue, &before))
    }

    deinit {
        var mode = before
        // SAFETY: the shim reads one structure.
        _ = unsafe cl_terminal_restore(stream.rawValue, &mode)
    }
}

extension CurrentProcess {
    /// The user this process acts as.
    package static var effectiveUser: UInt32 { cl_effective_uid() }
}

extension UnixSocket {
    /// Sends as much as fits now without waiting and without a signal: how much that was. `EAGAIN`: nothing fits.
    package borrowing func sendSome(_ bytes: ArraySlice<UInt8>) throws(Errno) -> Int {
        // SAFETY: the kernel reads exactly the slice; no descriptor is sent.
        let sent = unsafe bytes.withUnsafeBytes { unsafe cl_send(descriptor.number, $0.baseAddress, $0.count, nil, 0, 1) }
        return Int(try check(sent))
    }

    /// No more bytes will be sent; the peer reads the end of the stream. Or, both ways, nothing more is read either.
    package borrowing func shutdown(bothWays: Bool) { _ = cl_shutdown(descriptor.number, bothWays ? 1 : 0) }
}
