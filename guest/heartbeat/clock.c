// Time: the TSC and its frequency, kvmclock, and how well the two agree.
#include "heartbeat.h"

/// What the hypervisor writes per vCPU (struct pvclock_vcpu_time_info of the KVM documentation, x86/msr).
struct pvclock {
    uint32_t version, reserved;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, reserved1[2];
};
_Static_assert(sizeof(struct pvclock) == 32, "pvclock");

static struct { _Alignas(64) volatile struct pvclock page; } clocks[EVIDENCE_MAX_VCPUS];
static _Alignas(64) volatile struct { uint32_t version, sec, nsec; } wall;
static bool kvmclock;

static uint64_t scale(uint64_t tsc, uint32_t mul, int shift)
{
    tsc = shift < 0 ? tsc >> -shift : tsc << shift;
    return (uint64_t)((unsigned __int128)tsc * mul >> 32);
}

/// TSC since boot in nanoseconds, by the factor found at boot: nothing the hypervisor changes later can bend this scale.
uint64_t nanoseconds(uint64_t tsc)
{
    return scale(tsc - machine->boot_tsc, machine->clock_mul, machine->clock_shift);
}

static uint64_t read_kvmclock(const volatile struct pvclock *page, uint64_t *tsc)
{
    uint32_t version;
    uint64_t ns;
    do {
        version = page->version & ~1u;
        barrier();
        *tsc = rdtsc();
        ns = page->system_time + scale(*tsc - page->tsc_timestamp, page->mul, page->shift);
        barrier();
    } while (page->version != version);
    return ns;
}

static void enable(const struct vcpu_record *record)
{
    wrmsr(MSR_KVM_SYSTEM_TIME, (uintptr_t)&clocks[index_of(record)].page | 1);
}

/// Counts TSC cycles over 50 ms of PIT channel 2, for machines that have no better way to say it.
static uint64_t khz_from_pit(void)
{
    enum { COUNT = 59659 };
    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0);  // channel 2, mode 0
    outb(0x42, COUNT & 0xff);
    outb(0x42, COUNT >> 8);
    uint64_t begin = rdtsc();
    while (!(inb(0x61) & 0x20))
        ;
    return (rdtsc() - begin) / 50;
}

static uint64_t khz_without_kvmclock(void)
{
    if (cpuid(0x40000000, 0).eax >= 0x40000010 && cpuid(0x40000010, 0).eax)
        return cpuid(0x40000010, 0).eax;
    if (cpuid(0, 0).eax >= 0x15) {
        struct cpuid leaf = cpuid(0x15, 0);
        if (leaf.eax && leaf.ebx && leaf.ecx)
            return (uint64_t)leaf.ecx * leaf.ebx / leaf.eax / 1000;
    }
    return khz_from_pit();
}

/// Finds the frequency of the TSC, and with kvmclock the offset between the two; on vCPU 0.
void clock_find(void)
{
    uint32_t base;
    kvmclock = kvm_signature(&base) && cpuid(base + 1, 0).eax & 1 << 3;
    if (kvmclock) {
        const volatile struct pvclock *page = &clocks[0].page;
        enable(record_of(0));
        wrmsr(MSR_KVM_WALL_CLOCK, (uintptr_t)&wall);
        machine->boot_clock_ns = read_kvmclock(page, &machine->boot_tsc);
        machine->clock_mul = page->mul;
        machine->clock_shift = page->shift;
        machine->wall_sec = wall.sec;
        machine->wall_nsec = wall.nsec;
        uint64_t khz = (1000000ull << 32) / page->mul;
        machine->tsc_khz = page->shift < 0 ? khz << -page->shift : khz >> page->shift;
        return;
    }
    machine->tsc_khz = khz_without_kvmclock();
    machine->boot_tsc = rdtsc();
    uint64_t mul = (1000000ull << 32) / machine->tsc_khz;
    for (; mul >> 32; mul >>= 1)
        machine->clock_shift++;
    machine->clock_mul = (uint32_t)mul;
}

void clock_start(struct vcpu_record *record)
{
    if (kvmclock) {
        enable(record);
        record->features |= FEATURE_KVMCLOCK;
    }
}

/// Makes the hypervisor leave this vCPU's page alone.
void clock_stop(void)
{
    if (kvmclock)
        wrmsr(MSR_KVM_SYSTEM_TIME, 0);
}

/// Publishes a pair of readings and keeps the largest disagreement between kvmclock and TSC.
void clock_sample(struct vcpu_record *record)
{
    uint64_t tsc = rdtsc(), ns = 0;
    if (kvmclock)
        ns = read_kvmclock(&clocks[index_of(record)].page, &tsc);
    uint64_t before = record->sample_clock_ns;
    record->sample_sequence++;
    barrier();
    record->sample_tsc = tsc;
    record->sample_clock_ns = ns;
    barrier();
    record->sample_sequence++;
    if (!kvmclock)
        return;
    int64_t diff = (int64_t)(ns - machine->boot_clock_ns - nanoseconds(tsc));
    uint64_t size = (uint64_t)(diff < 0 ? -diff : diff);
    record->clock_diff_ns = diff;
    if (size > record->clock_diff_max)
        record->clock_diff_max = size;
    if (ns < before && before - ns > record->clock_back_max)
        record->clock_back_max = before - ns;
}

void delay_us(uint64_t us)
{
    for (uint64_t begin = rdtsc(); rdtsc() - begin < tsc_from_us(us);)
        relax();
}
