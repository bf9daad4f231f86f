internal import CLinux
internal import LinuxSystem
package import SystemPackage

/// MSRs and their values as the kernel takes them (`struct kvm_msrs`), at most 255 at a time.
package final class MSRBuffer: Sendable {
    private let buffer: KernelBuffer
    /// How many MSRs it holds.
    package var count: Int { Int(buffer.load32(at: 0)) }
    /// The kernel refuses 256 and more with E2BIG.
    package static let maximumCount = 255

    package init(_ indices: some Collection<UInt32>) {
        precondition(indices.count <= Self.maximumCount, "KVM takes at most 255 MSRs at a time")
        buffer = KernelBuffer(count: 8 + 16 * max(1, indices.count))
        buffer.store(UInt32(indices.count), at: 0)
        for (position, index) in indices.enumerated() { buffer.store(index, at: 8 + 16 * position) }
    }

    /// As many as it takes for all of `indices`, in their order.
    package static func all(_ indices: [UInt32]) -> [MSRBuffer] {
        stride(from: 0, to: indices.count, by: maximumCount).map { MSRBuffer(indices[$0..<min($0 + maximumCount, indices.count)]) }
    }

    /// Room for ``maximumCount`` MSRs, and none yet.
    package init() { buffer = KernelBuffer(count: 8 + 16 * Self.maximumCount) }

    package func removeAll() { buffer.store(UInt32(0), at: 0) }

    /// One more. Traps beyond the room.
    package func append(_ index: UInt32, _ value: UInt64) {
        let position = count
        buffer.store(index, at: 8 + 16 * position)
        buffer.store(value, at: 16 + 16 * position)
        buffer.store(UInt32(position + 1), at: 0)
    }

    package func index(at position: Int) -> UInt32 { buffer.load32(at: 8 + 16 * position) }

    package subscript(position: Int) -> UInt64 {
        get { buffer.load64(at: 16 + 16 * position) }
        set { buffer.store(newValue, at: 16 + 16 * position) }
    }

    /// The memory, for one ioctl.
    @unsafe fileprivate var pointer: UnsafeMutableRawPointer { unsafe buffer.pointer }
}

extension VCPU {
    /// KVM_GET_MSRS. How many were read: fewer than asked means the one at that position cannot be.
    package func read(_ msrs: MSRBuffer) throws(Errno) -> Int {
        // SAFETY: the header counts the entries that follow.
        Int(try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_GET_MSRS, msrs.pointer)))
    }

    /// KVM_SET_MSRS. How many were written: fewer than asked means the one at that position was refused.
    package func write(_ msrs: MSRBuffer) throws(Errno) -> Int {
        // SAFETY: the header counts the entries that follow.
        Int(try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_SET_MSRS, msrs.pointer)))
    }

    /// One MSR's value, `nil` when it cannot be read.
    package func value(ofMSR index: UInt32) -> UInt64? {
        let one = MSRBuffer([index])
        guard let read = try? read(one), read == 1 else { return nil }
        return one[0]
    }

    /// Writes one MSR; whether it was accepted.
    package func set(msr index: UInt32, to value: UInt64) -> Bool {
        let one = MSRBuffer([index])
        one[0] = value
        guard let written = try? write(one) else { return false }
        return written == 1
    }
}
