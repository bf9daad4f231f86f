internal import CLinux
internal import LinuxSystem
package import SystemPackage

extension VCPU {
    /// KVM_PRE_FAULT_MEMORY (Linux 6.11): enters a stretch of guest-physical addresses, whole pages, into the VM's second-stage page tables, as the
    /// guest's reading it would, so that the guest does not fault there. Allocates what has no page yet. Holds the vCPU all the while: nothing else can
    /// be done with it.
    ///
    /// Throws `ENOENT` where no memory slot is, `EOPNOTSUPP` where the vCPU has no second stage (KVM shadows the guest's page tables, or the vCPU is in
    /// a nested guest), `ENOTTY` from an older kernel.
    package func preFault(_ range: Range<UInt64>) throws(Errno) {
        // The kernel moves it over what it has done, and may come back before all of it.
        var request = cl_kvm_pre_fault_memory()
        request.gpa = range.lowerBound
        request.size = range.upperBound - range.lowerBound
        while request.size > 0 {
            // SAFETY: the kernel reads and writes one structure.
            let result = unsafe cl_kvm_call_with(descriptor.number, CL_KVM_PRE_FAULT_MEMORY, &request)
            if result == -Errno.interrupted.rawValue || result == -Errno.resourceTemporarilyUnavailable.rawValue { continue }
            try check(result)
        }
    }

    /// Has KVM allocate what it keeps for this vCPU's MMU, up to a hundred pages, and a root for the page tables in its registers: its first KVM_RUN does
    /// it otherwise. No guest instruction runs and no register changes. Where KVM cannot (before Linux 6.11) nothing happens.
    ///
    /// KVM_PRE_FAULT_MEMORY does that first (`kvm_mmu_reload` in Linux's arch/x86/kvm/mmu/mmu.c), also where it then says `EOPNOTSUPP`.
    ///
    /// - Parameter page: guest-physical, of one that the guest has; it may be entered as ``preFault(_:)`` does.
    package func prepareMMU(at page: UInt64) { try? preFault(page..<page + 4096) }
}
