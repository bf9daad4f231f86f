internal import CLinux
package import SystemPackage

/// Credentials of a socket's peer, as at connect(2) or socketpair(2) time.
package struct PeerCredentials: Sendable, Equatable {
    package let pid: Int32
    package let uid: UInt32
    package let gid: UInt32
}

/// Two connected sockets: `far` is the end to give away.
package struct SocketPair: ~Copyable {
    private let near: UnixSocket
    package let far: SharedDescriptor

    fileprivate init(_ numbers: (CInt, CInt)) {
        near = UnixSocket(OwnedDescriptor(owning: numbers.0))
        far = SharedDescriptor(OwnedDescriptor(owning: numbers.1))
    }

    /// The end to keep.
    package consuming func takeNear() -> UnixSocket { near }
}

/// A connected Unix socket.
package struct UnixSocket: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    package consuming func takeDescriptor() -> OwnedDescriptor { descriptor }

    /// Most descriptors of one message (`SCM_MAX_FD`).
    package static let mostDescriptors = Int(CL_MAXIMUM_DESCRIPTORS)

    /// The socket that this process was started with under a number, or `nil` when nothing is open there.
    package static func inherited(_ number: CInt) -> UnixSocket? {
        cl_status_flags(number) < 0 ? nil : UnixSocket(OwnedDescriptor(owning: number))
    }

    /// Two connected SEQPACKET ends: message boundaries and descriptors stay together.
    package static func sequencedPair() throws(Errno) -> SocketPair {
        var ends: (CInt, CInt) = (-1, -1)
        // SAFETY: the shim stores two integers.
        try check(unsafe withUnsafeMutableBytes(of: &ends) { unsafe cl_seqpacket_pair($0.baseAddress?.assumingMemoryBound(to: CInt.self)) })
        return SocketPair(ends)
    }

    /// Two connected stream ends with send buffers of `buffer` bytes.
    package static func streamPair(buffer: Int = 0) throws(Errno) -> SocketPair {
        var ends: (CInt, CInt) = (-1, -1)
        // SAFETY: the shim stores two integers.
        try check(
            unsafe withUnsafeMutableBytes(of: &ends) {
                unsafe cl_stream_pair($0.baseAddress?.assumingMemoryBound(to: CInt.self), CInt(clamping: buffer))
            })
        return SocketPair(ends)
    }

    /// Connects to a listening stream socket.
    package static func connect(to path: String) throws(Errno) -> UnixSocket {
        // SAFETY: the path is NUL-terminated for the duration of the call.
        UnixSocket(try OwnedDescriptor(checking: unsafe path.withCString { unsafe cl_connect($0) }))
    }

    package borrowing func peer() throws(Errno) -> PeerCredentials {
        var peer = cl_peer()
        // SAFETY: the shim fills one structure.
        try check(unsafe cl_peer(descriptor.number, &peer))
        return PeerCredentials(pid: peer.pid, uid: peer.uid, gid: peer.gid)
    }

    /// Sends one message with descriptors, whole or not at all.
    package borrowing func send(_ bytes: Span<UInt8>, descriptors: [CInt] = [], waiting: Bool = true) throws(Errno) {
        // SAFETY: the kernel reads exactly the span and the array.
        let sent = unsafe bytes.withUnsafeBufferPointer { data in
            unsafe descriptors.withUnsafeBufferPointer {
                unsafe cl_send(descriptor.number, data.baseAddress, data.count, $0.baseAddress, CUnsignedInt($0.count), waiting ? 0 : 1)
            }
        }
        try check(sent)
    }

    /// A buffer for ``receive(into:waiting:)``. A page of it takes no memory before a message has reached it: most messages are short.
    package static func buffer(_ count: Int) -> [UInt8] {
        // SAFETY: every bit pattern is a byte, and whoever receives looks only at what a message has filled.
        unsafe [UInt8](unsafeUninitializedCapacity: count) { _, used in used = count }
    }

    /// Receives one message into `buffer`, with its descriptors: the length, 0 when the peer is gone.
    ///
    /// `EPROTO`: the message or its descriptors did not arrive whole. `EAGAIN`: nothing there and not waiting.
    package borrowing func receive(into buffer: inout [UInt8], waiting: Bool = true) throws(Errno) -> (length: Int, descriptors: [SharedDescriptor]) {
        var numbers: InlineArray<253, CInt> = .init(repeating: -1)
        var count = CUnsignedInt(CL_MAXIMUM_DESCRIPTORS)
        // SAFETY: the kernel writes at most the buffer's length and the shim at most `count` descriptors.
        let length = unsafe buffer.withUnsafeMutableBytes { data in
            unsafe withUnsafeMutableBytes(of: &numbers) {
                unsafe cl_receive(
                    descriptor.number, data.baseAddress, data.count, $0.baseAddress?.assumingMemoryBound(to: CInt.self), &count, waiting ? 0 : 1)
            }
        }
        try check(length)
        var received: [SharedDescriptor] = []
        for index in 0..<Int(count) { received.append(SharedDescriptor(OwnedDescriptor(owning: numbers[index]))) }
        return (Int(length), received)
    }
}

/// A listening stream socket.
package struct UnixListener: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    /// Binds `path` with `permissions`. A stale socket file is replaced; `EADDRINUSE` when somebody answers on it.
    package init(path: String, permissions: UInt32) throws(Errno) {
        // SAFETY: the path is NUL-terminated for the duration of the call.
        descriptor = try OwnedDescriptor(checking: unsafe path.withCString { unsafe cl_listen($0, permissions) })
    }

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    package consuming func takeDescriptor() -> OwnedDescriptor { descriptor }

    /// The next connection, non-blocking. `EAGAIN` when none waits.
    package borrowing func accept() throws(Errno) -> UnixSocket { try Self.accept(descriptor) }

    /// The next connection to a socket that listens.
    package static func accept(_ listener: borrowing OwnedDescriptor) throws(Errno) -> UnixSocket {
        UnixSocket(try OwnedDescriptor(checking: cl_accept(listener.number)))
    }
}
