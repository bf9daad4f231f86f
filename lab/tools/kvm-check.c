/* Proves that /dev/kvm runs guests: a few real-mode instructions add two numbers, write the sum to a port and halt. */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static const uint8_t guest[] = {
    0xba, 0x80, 0x00, /* mov $0x80, %dx */
    0x00, 0xd8,       /* add %bl, %al   */
    0xee,             /* out %al, %dx   */
    0xf4,             /* hlt            */
};

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(1, "/dev/kvm");
    int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    int machine = ioctl(kvm, KVM_CREATE_VM, 0);
    if (machine < 0)
        err(1, "KVM_CREATE_VM");

    uint8_t *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    memcpy(memory, guest, sizeof guest);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = 0x1000, .memory_size = 4096, .userspace_addr = (uintptr_t)memory,
    };
    if (ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        err(1, "KVM_SET_USER_MEMORY_REGION");

    int vcpu = ioctl(machine, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        err(1, "KVM_CREATE_VCPU");
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "mmap of the vCPU");

    struct kvm_sregs sregs;
    if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        err(1, "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    struct kvm_regs regs = { .rip = 0x1000, .rax = 40, .rbx = 2, .rflags = 2 };
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        err(1, "setting the registers");

    if (ioctl(vcpu, KVM_RUN, 0) < 0)
        err(1, "KVM_RUN");
    if (run->exit_reason != KVM_EXIT_IO)
        errx(1, "the guest left with exit %u instead of a port write", run->exit_reason);
    unsigned sum = *((uint8_t *)run + run->io.data_offset);
    if (run->io.port != 0x80 || sum != 42)
        errx(1, "the guest wrote %u to port %#x instead of 42 to port 0x80", sum, run->io.port);
    if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_HLT)
        errx(1, "the guest did not halt: exit %u", run->exit_reason);
    printf("KVM (API %d) ran a guest, which computed 40 + 2 = %u and halted\n", version, sum);
    return 0;
}
