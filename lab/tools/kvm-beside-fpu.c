/* Proves that a guest survives floating-point work on another processor, which without lab/qemu/0003 it does not on the first:
   a guest that leaves with every instruction runs on the first processor allowed, FLDENV on the last. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "processors.h"

enum { SECONDS = 3 };

static const uint8_t guest[] = {
    0xe6, 0x80, /* 1: out %al, $0x80 */
    0xeb, 0xfc, /*    jmp 1b         */
};

static void load_forever(void)
{
    char environment[28];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    __asm__ volatile("fnstenv %0" : "=m"(environment));
    for (;;)
        __asm__ volatile("fldenv %0" : : "m"(environment));
}

int main(void)
{
    int first, last;
    outermost(&first, &last);

    pid_t loader = fork();
    pin(loader ? first : last);
    if (!loader)
        load_forever();

    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int vcpu = machine < 0 ? -1 : ioctl(machine, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        err(1, "making a vCPU");
    uint8_t *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (memory == MAP_FAILED || run == MAP_FAILED)
        err(1, "mmap");
    memcpy(memory, guest, sizeof guest);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = 0x1000, .memory_size = 4096, .userspace_addr = (uintptr_t)memory,
    };
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rip = 0x1000, .rax = 42, .rflags = 2 };
    if (ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) || ioctl(vcpu, KVM_GET_SREGS, &sregs))
        err(1, "preparing the guest");
    sregs.cs.base = sregs.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
        err(1, "setting the registers");

    unsigned long exits = 0;
    for (time_t end = time(NULL) + SECONDS; time(NULL) < end; exits++) {
        if (ioctl(vcpu, KVM_RUN, 0))
            err(1, "KVM_RUN after %lu exits", exits);
        if (run->exit_reason != KVM_EXIT_IO || *((uint8_t *)run + run->io.data_offset) != 42)
            errx(1, "on processor %d, beside FLDENV on %d, the guest left with exit %u after %lu port writes", first, last, run->exit_reason, exits);
    }
    kill(loader, SIGKILL);
    printf("the guest wrote %lu times to its port on processor %d, beside floating-point work on %d\n", exits, first, last);
    return 0;
}
