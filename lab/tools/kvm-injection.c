/* Proves that an injected interrupt is delivered once, and that what came after is not taken for a part of a delivery. The handler counts, waits, and calls another by INT, which writes the count where no memory is and no write was before: without lab/qemu/0002 that is internal error 3. Another processor adds to a misaligned number under lock, for which QEMU stops all of them: without lab/qemu/0001 a handler that was stopped is entered again. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { INJECTIONS = 1000, VECTOR = 0x20, PAGE = 4096, NO_MEMORY = 0x100000 };

static const uint8_t guest[] = {
    0xe6, 0x80,             /* 1: out %al, $0x80             */
    0xeb, 0xfc,             /*    jmp 1b                     */
#define COUNTER 4
    0x40,                   /*    inc %ax                    */
    0x89, 0xd9,             /*    mov %bx, %cx               */
    0xe2, 0xfe,             /* 2: loop 2b                    */
    0xcd, VECTOR + 1,       /*    int $0x21                  */
    0xcf,                   /*    iret                       */
#define WRITER 12
    0x67, 0x89, 0x07,       /*    mov %ax, (%edi)            */
    0x66, 0x81, 0xc7, 0x00, /*    add $0x1000, %edi          */
    0x10, 0x00, 0x00,
    0xcf,                   /*    iret                       */
};

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        err(1, "sched_setaffinity");
}

static void stop_forever(uint32_t *number)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        __asm__ volatile("lock incl %0" : "+m"(*number));
        for (volatile int i = 0; i < 1000; i++)
            ;
    }
}

int main(void)
{
    cpu_set_t allowed;
    int first = 0, last = CPU_SETSIZE - 1;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        err(1, "sched_getaffinity");
    while (!CPU_ISSET(first, &allowed))
        first++;
    while (!CPU_ISSET(last, &allowed))
        last--;

    uint8_t *memory = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    uint32_t *stops = (uint32_t *)(memory + 2 * PAGE + 62), stopped;
    pid_t stopper = fork();
    pin(stopper ? last : first);
    if (!stopper)
        stop_forever(stops);

    /* With a local APIC in the kernel: without, KVM has the guest leave at once after every injection. */
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
    int vcpu = machine < 0 || ioctl(machine, KVM_ENABLE_CAP, &split) ? -1 : ioctl(machine, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        err(1, "making a vCPU");
    struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "mmap of the vCPU");

    /* The first page holds code and vectors, the second the stack. */
    memcpy(memory, guest, sizeof guest);
    memory[4 * VECTOR] = COUNTER;
    memory[4 * (VECTOR + 1)] = WRITER;
    struct kvm_userspace_memory_region region = { .memory_size = 2 * PAGE, .userspace_addr = (uintptr_t)memory };
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rbx = 10000, .rdi = NO_MEMORY, .rsp = 2 * PAGE, .rflags = 0x202 };
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
                errx(1, "internal error %u at interrupt %d: a write after the delivery was taken for a part of it", run->internal.suberror, injected);
            if (run->exit_reason == KVM_EXIT_MMIO)
                memcpy(&count, run->mmio.data, sizeof count);
        } while (run->exit_reason == KVM_EXIT_MMIO);
        if (run->exit_reason != KVM_EXIT_IO)
            errx(1, "the guest left with exit %u at interrupt %d", run->exit_reason, injected);
        if (count != injected)
            errx(1, "of %d injected interrupts the guest took %u", injected, count);
    }
    kill(stopper, SIGKILL);
    memcpy(&stopped, stops, sizeof stopped);
    printf("the guest took each of %d injected interrupts once on processor %d, stopped %u times by %d\n", INJECTIONS, last, stopped, first);
    return 0;
}
