"""Whether this host's KVM honours KVM_VCPU_TSC_OFFSET: a vCPU without any VMM executes RDTSC before and after the offset was changed.

Run as a program it says so and ends with status 0 (honoured), 1 (refused or ignored) or 2 (no KVM).
"""
import ctypes
import fcntl
import mmap
import os
import struct
import sys

KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_SET_IDENTITY_MAP_ADDR = 0x4008AE48
KVM_RUN = 0xAE80
KVM_GET_REGS, KVM_SET_REGS = 0x8090AE81, 0x4090AE82
KVM_GET_SREGS, KVM_SET_SREGS = 0x8138AE83, 0x4138AE84
KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR = 0x4018AEE1, 0x4018AEE2
KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET = 0, 0
KVM_EXIT_IO = 2

# rdtsc; out 0x80, al; jmp back to rdtsc
CODE = b"\x0f\x31" + b"\xe6\x80" + b"\xeb\xfa"
STEP = 1 << 45  # hours: nothing that passes between two readings


class _BareVCPU:
    """One vCPU in real mode at address 0."""

    def __init__(self):
        self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.kvm, KVM_CREATE_VM, 0)
        fcntl.ioctl(self.vm, KVM_SET_IDENTITY_MAP_ADDR, struct.pack("<Q", 0x7FFBC000))
        fcntl.ioctl(self.vm, KVM_SET_TSS_ADDR, 0x7FFBD000)
        self.memory = mmap.mmap(-1, 4096)
        self.memory[: len(CODE)] = CODE
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, 4096, address))
        self.vcpu = fcntl.ioctl(self.vm, KVM_CREATE_VCPU, 0)
        self.run = mmap.mmap(self.vcpu, fcntl.ioctl(self.kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
        sregs = bytearray(0x138)
        fcntl.ioctl(self.vcpu, KVM_GET_SREGS, sregs)
        struct.pack_into("<QIH", sregs, 0, 0, 0xFFFF, 0)  # the code segment: base 0, limit, selector 0
        fcntl.ioctl(self.vcpu, KVM_SET_SREGS, bytes(sregs))
        regs = bytearray(0x90)
        struct.pack_into("<QQ", regs, 0x80, 0, 2)  # rip, rflags
        fcntl.ioctl(self.vcpu, KVM_SET_REGS, bytes(regs))

    def read_tsc(self):
        """What RDTSC gives in the guest."""
        fcntl.ioctl(self.vcpu, KVM_RUN, 0)
        reason = struct.unpack_from("<I", self.run, 8)[0]
        if reason != KVM_EXIT_IO:
            raise OSError(f"the probe's guest left for reason {reason}")
        regs = bytearray(0x90)
        fcntl.ioctl(self.vcpu, KVM_GET_REGS, regs)
        rax, rdx = struct.unpack_from("<Q", regs, 0)[0], struct.unpack_from("<Q", regs, 0x18)[0]
        return (rdx & 0xFFFFFFFF) << 32 | rax & 0xFFFFFFFF

    def _attribute(self, request, value):
        word = ctypes.c_uint64(value)
        fcntl.ioctl(self.vcpu, request, struct.pack("<IIQQ", 0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, ctypes.addressof(word)))
        return word.value

    def offset(self):
        return self._attribute(KVM_GET_DEVICE_ATTR, 0)

    def set_offset(self, value):
        self._attribute(KVM_SET_DEVICE_ATTR, value & (1 << 64) - 1)

    def close(self):
        self.run.close()
        for descriptor in (self.vcpu, self.vm, self.kvm):
            os.close(descriptor)


def probe():
    """(whether it is honoured, what was found)."""
    vcpu = _BareVCPU()
    try:
        first = vcpu.read_tsc()
        try:
            before = vcpu.offset()
            vcpu.set_offset(before + STEP)
            after = vcpu.offset()
        except OSError as error:
            return False, f"this kernel has no KVM_VCPU_TSC_OFFSET: {error.strerror}"
        moved = vcpu.read_tsc() - first
        if (after - before) % (1 << 64) != STEP or not STEP <= moved < STEP + STEP // 2:
            return False, (f"KVM_VCPU_TSC_OFFSET is accepted and ignored: moved by {STEP:#x}, it reads back moved by "
                           f"{(after - before) % (1 << 64):#x}, and the guest's RDTSC moved by {moved:#x}")
        return True, "KVM_VCPU_TSC_OFFSET moves the guest's RDTSC"
    finally:
        vcpu.close()


if __name__ == "__main__":
    try:
        honoured, what = probe()
    except OSError as problem:
        print(f"cannot be probed: {problem}")
        sys.exit(2)
    print(what)
    sys.exit(0 if honoured else 1)
