internal import CLinux
internal import LinuxSystem
package import SystemPackage

extension VCPU {
    /// KVM_TRANSLATE: the guest-physical address behind a linear one, by the page tables as they are now; `nil` when there is none.
    package func physicalAddress(of linear: UInt64) throws(Errno) -> UInt64? {
        let buffer = KernelBuffer(count: 24)
        buffer.store(linear, at: 0)
        // SAFETY: the argument is a struct kvm_translation of 24 bytes.
        try check(unsafe cl_kvm_call_with(descriptor.number, CL_KVM_TRANSLATE, buffer.pointer))
        return buffer.load8(at: 16) != 0 ? buffer.load64(at: 8) : nil
    }
}
