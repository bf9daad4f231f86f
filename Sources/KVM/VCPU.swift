internal import CLinux
internal import LinuxSystem
package import SystemPackage

/// A vCPU: its descriptor and its `struct kvm_run`, which never leaves this module.
///
/// One thread runs it and reads its exits; any thread may call ``requestExit()``.
@safe
package final class VCPU: @unchecked Sendable {
    // `run` is written by the kernel during KVM_RUN and by whoever has the vCPU between; immediate_exit alone is atomic.
    let descriptor: OwnedDescriptor
    private let run: UnsafeMutableRawPointer
    private let runSize: Int
    package let index: Int
    /// Whether the last exit, if there was one, may have left something half done. Of whoever has the vCPU.
    private var isHalfDone = true

    init(_ descriptor: consuming OwnedDescriptor, index: Int, mapSize: Int) throws(Errno) {
        var address: UnsafeMutableRawPointer? = nil
        // SAFETY: the shim stores one pointer.
        try check(unsafe cl_map(descriptor.number, 0, mapSize, 1, &address))
        guard let mapped = unsafe address else { throw Errno.noMemory }
        unsafe run = mapped
        runSize = mapSize
        self.descriptor = descriptor
        self.index = index
    }

    deinit {
        // SAFETY: the mapping is ours and nobody can reach it any more.
        _ = unsafe cl_unmap(run, runSize)
    }

    /// KVM_RUN until the next exit. Blocks; a signal, or ``requestExit()`` before it, ends it with ``VCPUExit/interrupted``.
    package func runUntilExit() throws(Errno) -> VCPUExit {
        let result = cl_kvm_call(descriptor.number, CL_KVM_RUN, 0)
        isHalfDone = result != -Errno.interrupted.rawValue && result != -Errno.resourceTemporarilyUnavailable.rawValue
        if !isHalfDone { return .interrupted }
        try check(result)
        return lastExit()
    }

    /// Completes what the last exit left half done, without running guest code: KVM_RUN with `immediate_exit`, unless the last one was interrupted, which
    /// completes first what it finds. Call until it returns ``VCPUExit/interrupted``, handling every other exit; registers are consistent only then.
    package func completePendingExit() throws(Errno) -> VCPUExit {
        requestExit()
        return isHalfDone ? try runUntilExit() : .interrupted
    }

    /// KVM_RUN with a signal pending: no guest instruction runs, expired LAPIC timers move to the IRR, with whatever else KVM has put off until then. By
    /// whoever has the vCPU, after ``completePendingExit()`` said ``VCPUExit/interrupted``.
    package func collectExpiredTimers() throws(Errno) -> VCPUExit {
        defer { requestExit() }
        repeat {
            clearExitRequest()
            isHalfDone = true
            isHalfDone = try check(cl_kvm_run_with_pending_signal(descriptor.number)) != 0
        } while !isHalfDone && isExitRequested  // by somebody, in between: KVM may have come back at once
        return isHalfDone ? lastExit() : .interrupted
    }

    /// Has KVM do, for a vCPU that has never run, what it would do on its first way into the guest: above all compare all vCPUs' TSCs
    /// (KVM_REQ_MASTERCLOCK_UPDATE), for which it wakes every one that is halted. No guest instruction runs, and the run state stays as it was. On the thread
    /// that will run the vCPU. Returns what ``collectExpiredTimers()`` does: ``VCPUExit/interrupted``, unless KVM cannot enter the guest.
    package func prepareEntry() throws(Errno) -> VCPUExit {
        // With any state but KVM_MP_STATE_RUNNABLE, which is 0, KVM does not get that far.
        let (before, runnable) = (KernelBuffer(count: 4), KernelBuffer(count: 4))
        try read(.mpState, into: before)
        try write(.mpState, from: runnable)
        let exit = Result { () throws(Errno) in try collectExpiredTimers() }
        try write(.mpState, from: before)
        return try exit.get()
    }

    /// Makes the next KVM_RUN return at once (`immediate_exit`). For a vCPU that may be inside KVM_RUN also kick its thread.
    package func requestExit() {
        // SAFETY: the mapping is alive; the field is atomic.
        unsafe cl_kvm_set_immediate_exit(run, 1)
    }

    private var isExitRequested: Bool {
        // SAFETY: the mapping is alive; the field is atomic.
        unsafe cl_kvm_immediate_exit(run) != 0
    }

    package func clearExitRequest() {
        // SAFETY: the mapping is alive; the field is atomic.
        unsafe cl_kvm_set_immediate_exit(run, 0)
    }

    private func lastExit() -> VCPUExit {
        var flat = cl_kvm_exit_detail()
        // SAFETY: the kernel filled the structure; the shim copies out of it.
        unsafe cl_kvm_decode_exit(run, &flat)
        return VCPUExit(flat)
    }

    /// What KVM told with an ``VCPUExit/internalError(suberror:detail:)`` just returned: at most 16 words.
    package var internalErrorData: [UInt64] {
        var data = [UInt64](repeating: 0, count: 16)
        // SAFETY: the shim copies at most 16 words out of the mapping.
        let count = unsafe data.withUnsafeMutableBufferPointer { unsafe cl_kvm_internal_error_data(run, $0.baseAddress) }
        return Array(data.prefix(Int(count)))
    }

    /// Element `index` of the data that an OUT wrote.
    package func data(of access: PortAccess, at index: Int) -> UInt32 {
        let offset = access.dataOffset + index * access.size
        precondition(index >= 0 && offset + access.size <= runSize, "data outside the mapping")
        // SAFETY: bounds were checked.
        return UInt32(truncatingIfNeeded: unsafe cl_kvm_load(run, UInt64(offset), UInt32(access.size)))
    }

    /// Answers element `index` of an IN.
    package func complete(_ access: PortAccess, at index: Int, with value: UInt32) {
        let offset = access.dataOffset + index * access.size
        precondition(index >= 0 && offset + access.size <= runSize, "data outside the mapping")
        // SAFETY: bounds were checked.
        unsafe cl_kvm_store(run, UInt64(offset), UInt32(access.size), UInt64(value))
    }

    /// Answers a load from memory-mapped I/O.
    package func complete(_ access: MemoryAccess, with value: UInt64) {
        // SAFETY: the shim names the field; at most eight bytes.
        unsafe cl_kvm_store(run, cl_kvm_mmio_offset(), UInt32(access.size), value)
    }
}
