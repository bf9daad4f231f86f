// The floor under any handover on this host: `floor KERNEL MIB VCPUS COMMAND-LINE [CPU...]` runs the guest that checks itself and does one step
// for each line on standard input: "build" makes another VM on the same memory, with its vCPUs' threads, which wait for a futex; "run" stops
// the guest, reads its state, writes it into that VM and runs it there; "interrupts N" gives that VM what a passed-through device of N vectors has
// in KVM, and takes it away. A line of JSON answers each: of "run" how long the vCPU that was away for longest took from leaving the guest to its
// next KVM_RUN, when that was, and the largest gap any vCPU saw in its own TSC since "build"; of "interrupts" how long KVM took.
#include "floor.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint8_t *ram;
uint64_t ram_size;
int cpus[MAX_VCPUS], cpu_count;

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

void call(int fd, unsigned long request, void *argument, const char *what)
{
    if (ioctl(fd, request, argument) < 0)
        fail(what);
}

int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void wait_for(_Atomic uint32_t *word)
{
    while (!atomic_load(word))
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
    atomic_store(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void kicked(int signal) { (void)signal; }

static bool run(struct vcpu *vcpu) { return ioctl(vcpu->fd, KVM_RUN, 0) == 0; }

static void complete(struct vcpu *vcpu)
{
    vcpu->run->immediate_exit = 1;
    while (run(vcpu) && handle_exit(vcpu))
        ;
    vcpu->run->immediate_exit = 0;
}

static uint32_t apic(const struct vcpu_state *state, int at)
{
    uint32_t value;
    memcpy(&value, state->lapic.regs + at, sizeof value);
    return value;
}

/// Whether, by the APIC as it was saved last, an interrupt may be on its way that KVM has not put into the IRR: of a periodic timer, a one-shot one
/// that has run down, or performance counters. Unknown before the first time.
static bool may_hide_interrupts(const struct vcpu_state *state)
{
    uint32_t mode = apic(state, 0x320) >> 17 & 3;
    return apic(state, 0x30) == 0 || !(apic(state, 0x340) & 0x10000) || (apic(state, 0x380) && (mode == 1 || (mode == 0 && !apic(state, 0x390))));
}

/// Lets expired timers reach the IRR: as baton-vmm does where one could be lost.
static void collect(struct vcpu *vcpu)
{
    sigset_t kick, before;
    sigemptyset(&kick);
    sigaddset(&kick, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &kick, &before);
    syscall(SYS_tgkill, getpid(), vcpu->tid, SIGRTMIN);
    struct { uint32_t length; uint8_t set[8]; } mask = { 8, { 0 } };
    call(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask, "KVM_SET_SIGNAL_MASK");
    while (run(vcpu) && handle_exit(vcpu))
        complete(vcpu);
    call(vcpu->fd, KVM_SET_SIGNAL_MASK, NULL, "KVM_SET_SIGNAL_MASK");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/// The last vCPU to have saved also saves the rest and wakes the next VM's threads.
static void give(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    struct vcpu_state *state = &vcpu_states[vcpu->index];
    vcpu->left_ns = now_ns();
    complete(vcpu);
    bool collected = may_hide_interrupts(state);
    if (collected)
        collect(vcpu);
    save_vcpu(vcpu, state);
    if (!collected && may_hide_interrupts(state)) {
        collect(vcpu);
        save_vcpu(vcpu, state);
    }
    if (atomic_fetch_add(&vm->arrived, 1) + 1 != (uint32_t)vm->count)
        return;
    save_machine(vm);
    for (int i = 0; i < vm->count; i++)
        wake(&vm->next->vcpus[i].started);
}

static void take(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    restore_vcpu(vcpu, &vcpu_states[vcpu->index]);
    if (atomic_fetch_add(&vm->arrived, 1) + 1 == (uint32_t)vm->count) {
        restore_machine(vm);
        atomic_store(&vm->arrived, 0);
        wake(&vm->go);
    }
    wait_for(&vm->go);
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    struct vm *vm = vcpu->vm;
    if (cpu_count) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpus[vcpu->index % cpu_count], &set);
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    vcpu->tid = (int)syscall(SYS_gettid);
    wait_for(&vcpu->started);
    if (atomic_load(&vm->over))
        return NULL;
    if (!atomic_load(&vm->go))
        take(vcpu);
    vcpu->entered_ns = now_ns();
    while (!atomic_load(&vm->parked)) {
        if (run(vcpu) ? !handle_exit(vcpu) : errno != EINTR && errno != EAGAIN)
            fail("KVM_RUN");
    }
    give(vcpu);
    return NULL;
}

static void start_threads(struct vm *vm)
{
    for (int i = 0; i < vm->count; i++)
        if (pthread_create(&vm->vcpus[i].thread, NULL, vcpu_thread, &vm->vcpus[i]))
            fail("starting a thread");
}

static void pause_us(long us)
{
    struct timespec time = { us / 1000000, us % 1000000 * 1000 };
    nanosleep(&time, NULL);
}

static volatile struct vcpu_record *record(int index)
{
    return (volatile struct vcpu_record *)(ram + EVIDENCE_BASE + EVIDENCE_RECORD_SIZE * (1 + index));
}

static void wait_progress(int count, uint64_t rounds)
{
    uint64_t before[MAX_VCPUS];
    for (int i = 0; i < count; i++)
        before[i] = record(i)->beats;
    int64_t began = now_ns();
    for (int i = 0; i < count; i++)
        while (record(i)->beats < before[i] + rounds) {
            pause_us(500);
            if (now_ns() - began > 20000000000ll) {
                fprintf(stderr, "floor: vCPU %d stands still\n", i);
                exit(1);
            }
        }
}

static void build_next(struct vm *from)
{
    from->next = make_vm(from->count);
    start_threads(from->next);
    pause_us(20000);  // they reach their futex
    for (int i = 0; i < from->count; i++)
        record(i)->gap_max = 0;
    puts("{}");
}

/// What a device's messages cost a VM that has not run: to be led to a vCPU, to be attached, to be detached. Its own interrupt controllers have no
/// routes afterwards.
static void time_interrupts(struct vm *vm, int count)
{
    static struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[MAX_VECTORS]; } routes;
    int events[MAX_VECTORS];
    if (count < 1 || count > MAX_VECTORS)
        fail("that many vectors");
    routes.head.nr = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        routes.entries[i] = (struct kvm_irq_routing_entry){ .gsi = 24u + (uint32_t)i, .type = KVM_IRQ_ROUTING_MSI };
        routes.entries[i].u.msi.address_lo = 0xfee00000;
        routes.entries[i].u.msi.data = 0x40u + (uint32_t)i;
        if ((events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
            fail("eventfd");
    }
    int64_t began = now_ns();
    call(vm->fd, KVM_SET_GSI_ROUTING, &routes, "KVM_SET_GSI_ROUTING");
    int64_t times[3] = { now_ns() - began };
    for (int step = 0; step < 2; step++) {
        began = now_ns();
        for (int i = 0; i < count; i++) {
            struct kvm_irqfd irqfd = { .fd = (uint32_t)events[i], .gsi = 24u + (uint32_t)i, .flags = step ? KVM_IRQFD_FLAG_DEASSIGN : 0 };
            call(vm->fd, KVM_IRQFD, &irqfd, "KVM_IRQFD");
        }
        times[1 + step] = now_ns() - began;
    }
    for (int i = 0; i < count; i++)
        close(events[i]);
    printf("{\"route\": %ld, \"attach\": %ld, \"detach\": %ld}\n", (long)times[0], (long)times[1], (long)times[2]);
}

static struct vm *hand_over(struct vm *from)
{
    int count = from->count;
    struct vm *to = from->next;
    int64_t began = now_ns();
    atomic_store(&from->parked, 1);
    for (int i = 0; i < count; i++) {
        from->vcpus[i].run->immediate_exit = 1;
        pthread_kill(from->vcpus[i].thread, SIGRTMIN);
    }
    for (int i = 0; i < count; i++)
        pthread_join(from->vcpus[i].thread, NULL);
    wait_for(&to->go);
    wait_progress(count, 2);  // a halted one has a round for each tick, and the guest remembers 16 gaps
    volatile struct machine_record *machine = (volatile struct machine_record *)(ram + EVIDENCE_BASE);
    int64_t switched = 0, ended = began;
    uint64_t gap = 0;
    for (int i = 0; i < count; i++) {
        int64_t taken = to->vcpus[i].entered_ns - from->vcpus[i].left_ns;
        uint64_t seen = record(i)->gap_max * 1000000 / machine->tsc_khz;
        switched = taken > switched ? taken : switched;
        ended = to->vcpus[i].entered_ns > ended ? to->vcpus[i].entered_ns : ended;
        gap = seen > gap ? seen : gap;
    }
    printf("{\"exit_to_run\": %ld, \"gap\": %lu, \"began\": %ld, \"ended\": %ld, \"damage\": %lu}\n", (long)switched, (unsigned long)gap,
        (long)began, (long)ended, (unsigned long)machine->damage);
    fflush(stdout);  // KVM takes its time to destroy a VM
    destroy_vm(from);
    return to;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        fail("usage: floor KERNEL MIB VCPUS COMMAND-LINE [CPU...]");
    int count = atoi(argv[3]);
    ram_size = (uint64_t)atol(argv[2]) << 20;
    for (int i = 5; i < argc && cpu_count < MAX_VCPUS; i++)
        cpus[cpu_count++] = atoi(argv[i]);
    struct sigaction action = { .sa_handler = kicked };
    sigaction(SIGRTMIN, &action, NULL);
    int file = memfd_create("guest-ram", MFD_CLOEXEC);
    if (count < 1 || count > MAX_VCPUS || file < 0 || ftruncate(file, (off_t)ram_size))
        fail("guest memory");
    ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (ram == MAP_FAILED)
        fail("mapping guest memory");
    load_guest(argv[1], argv[4]);
    struct vm *vm = make_vm(count);
    start_at_entry(vm);
    for (int i = 0; i < count; i++)
        atomic_store(&vm->vcpus[i].started, 1);
    atomic_store(&vm->go, 1);
    start_threads(vm);
    volatile struct machine_record *machine = (volatile struct machine_record *)(ram + EVIDENCE_BASE);
    while (machine->magic != EVIDENCE_MAGIC || machine->state != STATE_RUNNING || machine->online != (uint32_t)count)
        pause_us(2000);
    printf("{\"xsave\": %d, \"msrs\": %u, \"nested\": %d, \"tsc_khz\": %d}\n", features.xsave_size, features.saved_count,
        features.nested_size, features.tsc_khz);
    char line[32];
    while (fflush(stdout) == 0 && fgets(line, sizeof line, stdin)) {
        if (*line == 'b')
            build_next(vm);
        else if (vm->next && *line == 'i')
            time_interrupts(vm->next, atoi(line + strcspn(line, " ")));
        else if (vm->next)
            vm = hand_over(vm);
    }
    return 0;
}
