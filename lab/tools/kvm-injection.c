/* Proves that an injected interrupt is delivered once, and that what comes after is not taken for a part of a delivery. Its handler
   counts and waits for another processor to add to a misaligned number under lock, for which QEMU stops all of them: without
   lab/qemu/0001 the handler is then entered again. It calls another handler by INT, which writes the count where no memory is and
   none was touched: without lab/qemu/0002 that is internal error 3. */
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
#include <unistd.h>

#include "processors.h"

/* The guest's memory: code and vectors, a page for the stack, and one for the two numbers. */
enum { INJECTIONS = 100, VECTOR = 0x20, STACK = 0x2000, STARTED = 0x2000, STOPPED = 0x203f, MEMORY = 0x3000, NO_MEMORY = 0x100000 };
enum { COUNTER = 4, WRITER = 17 };

static const uint8_t guest[] = {
    0xe6, 0x80,             /* 1: out %al, $0x80             */
    0xeb, 0xfc,             /*    jmp 1b                     */
    /* COUNTER */
    0x40,                   /*    inc %ax                    */
    0xa3, 0x00, 0x20,       /*    mov %ax, STARTED           */
    0x39, 0x06, 0x3f, 0x20, /* 2: cmp %ax, STOPPED           */
    0x72, 0xfa,             /*    jb 2b                      */
    0xcd, VECTOR + 1,       /*    int $0x21                  */
    0xcf,                   /*    iret                       */
    /* WRITER */
    0x67, 0x89, 0x07,       /*    mov %ax, (%edi)            */
    0x66, 0x81, 0xc7,       /*    add $0x1000, %edi          */
    0x00, 0x10, 0x00, 0x00,
    0xcf,                   /*    iret                       */
};

static void stop_forever(uint8_t *memory)
{
    volatile uint16_t *started = (uint16_t *)(memory + STARTED);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint16_t stopped = 0;; stopped++) {
        while (*started == stopped)
            usleep(50);
        __asm__ volatile("lock incw %0" : "+m"(*(uint16_t *)(memory + STOPPED)));
    }
}

int main(void)
{
    int first, last;
    outermost(&first, &last);

    uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    pid_t stopper = fork();
    pin(stopper ? last : first);
    if (!stopper)
        stop_forever(memory);

    /* With a local APIC in the kernel: without one, KVM lets the guest leave at once after each injection. */
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
    int vcpu = machine < 0 || ioctl(machine, KVM_ENABLE_CAP, &split) ? -1 : ioctl(machine, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        err(1, "making a vCPU");
    struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "mmap of the vCPU");

    memcpy(memory, guest, sizeof guest);
    memory[4 * VECTOR] = COUNTER;
    memory[4 * (VECTOR + 1)] = WRITER;
    struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rdi = NO_MEMORY, .rsp = STACK, .rflags = 0x202 };
    if (ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) || ioctl(vcpu, KVM_GET_SREGS, &sregs))
        err(1, "preparing the guest");
    sregs.cs.base = sregs.cs.selector = 0;
    sregs.ds.limit = UINT32_MAX;
    sregs.ds.g = 1;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
        err(1, "setting the registers");

    if (ioctl(vcpu, KVM_RUN, 0) || run->exit_reason != KVM_EXIT_IO)
        errx(1, "the guest left with exit %u before any interrupt", run->exit_reason);
    for (int injected = 1; injected <= INJECTIONS; injected++) {
        struct kvm_interrupt interrupt = { VECTOR };
        uint16_t count = 0;
        if (ioctl(vcpu, KVM_INTERRUPT, &interrupt))
            err(1, "KVM_INTERRUPT");
        do {
            if (ioctl(vcpu, KVM_RUN, 0))
                err(1, "KVM_RUN");
            if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
                errx(1, "internal error %u at interrupt %d: a write after a delivery was taken for a part of it", run->internal.suberror, injected);
            if (run->exit_reason == KVM_EXIT_MMIO)
                memcpy(&count, run->mmio.data, sizeof count);
        } while (run->exit_reason == KVM_EXIT_MMIO);
        if (run->exit_reason != KVM_EXIT_IO)
            errx(1, "the guest left with exit %u at interrupt %d", run->exit_reason, injected);
        if (count != injected)
            errx(1, "%d interrupts were injected and %u delivered", injected, count);
    }
    kill(stopper, SIGKILL);
    printf("the guest took each of %d interrupts once on processor %d, stopped in each by %d\n", INJECTIONS, last, first);
    return 0;
}
