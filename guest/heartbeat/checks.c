// What must not change: memory, vector registers, system registers.
#include "heartbeat.h"

enum { WORDS = REGION_SIZE / 8 };

static _Alignas(0x10000) uint64_t regions[EVIDENCE_MAX_VCPUS][WORDS];

static uint64_t pattern(uint64_t seed)
{
    seed = (seed + WORD_STEP) * PASS_STEP;
    return seed ^ seed >> 29;
}

void damage(struct vcpu_record *record, enum heartbeat_damage code, uint64_t where, uint64_t expected, uint64_t found)
{
    if (!record->damage) {
        record->damage_where = where;
        record->damage_expected = expected;
        record->damage_found = found;
        record->damage_tsc = record->last_tsc;
        WRITE_ONCE(record->damage_code, code);
    }
    record->damage++;
    atomic_add64(&machine->damage, 1);
}

void gap_found(struct vcpu_record *record, uint64_t tsc, uint64_t gap)
{
    if ((int64_t)gap < 0) {
        damage(record, DAMAGE_TSC, (uintptr_t)__builtin_return_address(0), tsc - gap, tsc);
        return;
    }
    if (gap > record->gap_max) {
        record->gap_tsc = tsc;
        WRITE_ONCE(record->gap_max, gap);
    }
    if (gap <= record->stall_tsc)
        return;
    record->stall[record->stalls % (sizeof record->stall / sizeof *record->stall)] = (struct stall){ tsc, gap };
    WRITE_ONCE(record->stalls, record->stalls + 1);
    record->stalled += gap;
    if (gap > record->timer.stall)
        record->timer.stall = gap;
    // The PIT is not the work of vCPU 0 alone: the thread behind it may have been stopped together with another vCPU.
    if (gap > READ_ONCE(machine->pit.stall))
        WRITE_ONCE(machine->pit.stall, gap);
}

// Memory. Word i holds, in pass p, seed + p * PASS_STEP + i * WORD_STEP: no two words of any two passes or vCPUs are alike.

static uint64_t first_word(const struct vcpu_record *record, uint64_t pass)
{
    return pattern(index_of(record)) + pass * PASS_STEP;
}

void memory_damaged(struct vcpu_record *record, const uint64_t *address, uint64_t expected, uint64_t found)
{
    damage(record, DAMAGE_MEMORY, (uintptr_t)address, expected, found);
}

static void memory_start(struct vcpu_record *record)
{
    uint64_t *region = regions[index_of(record)], value = first_word(record, 0);
    for (unsigned i = 0; i < WORDS; i++, value += WORD_STEP)
        region[i] = value;
    record->region = record->next_word = (uintptr_t)region;
    record->region_size = REGION_SIZE;
    record->next_value = first_word(record, 0);
}

/// At the end of the region: the sum of the words is known in closed form.
void memory_pass_done(struct vcpu_record *record)
{
    uint64_t expected = WORDS * first_word(record, record->passes) + WORD_STEP * ((uint64_t)WORDS * (WORDS - 1) / 2);
    if (record->sum != expected)
        damage(record, DAMAGE_MEMORY_SUM, record->passes, expected, record->sum);
    record->pass_sum = record->sum;
    record->sum = 0;
    record->passes++;
    record->next_word = record->region;
    record->next_value = first_word(record, record->passes);
}

// General registers: beat.S keeps them.

void general_damaged(struct vcpu_record *record, uint64_t number, uint64_t expected, uint64_t found)
{
    damage(record, DAMAGE_GENERAL, number, expected, found);
}

// Vector registers, in the layout of FXSAVE and XSAVE. Slot 0 is the x87 control part with MXCSR, then the x87 registers, xmm, the upper
// halves of ymm. Nothing in this program uses them otherwise.

enum { SLOT_X87 = 1, SLOT_XMM = 9, SLOT_YMM = 25, SLOTS = 41 };
enum { CR4_OSFXSR = 1 << 9, CR4_OSXMMEXCPT = 1 << 10, CR4_OSXSAVE = 1 << 18 };

static struct vector_area {
    _Alignas(64) uint64_t known[128];
    _Alignas(64) uint64_t found[128];
    uint32_t slot;
} vectors[EVIDENCE_MAX_VCPUS];
static uint32_t ymm_offset;

static uint32_t slot_offset(uint32_t slot)
{
    if (slot < SLOT_XMM)
        return 2 * (slot - SLOT_X87) + 4;
    return slot < SLOT_YMM ? 2 * (slot - SLOT_XMM) + 20 : 2 * (slot - SLOT_YMM) + ymm_offset / 8;
}

/// Whether instructions take microseconds. A KVM that runs its guest in the instruction emulator may announce XSAVE and yet fail at
/// the first XRSTOR, and that failure ends the machine: it cannot be tried, only foreseen.
static bool emulated(void)
{
    uint64_t least = ~0ull;
#pragma clang loop unroll(disable)
    for (unsigned i = 0; i < 32; i++) {  // the first rounds may be slow anywhere
        uint64_t begin = rdtsc();
        __asm__ volatile(".fill 64, 1, 0x90");
        uint64_t taken = rdtsc() - begin;
        if (taken < least)
            least = taken;
    }
    return least > tsc_from_us(4);
}

static void vector_start(struct vcpu_record *record)
{
    struct vector_area *area = &vectors[index_of(record)];
    struct cpuid features = cpuid(1, 0);
    bool xsave = features.ecx & 1 << 26 && !emulated();
    uint64_t cr4, xcr0 = 3;
    if (!(features.edx & 1 << 24) || !(features.edx & 1 << 25))
        return;
    for (uint32_t i = 0; i < 128; i++)
        area->known[i] = pattern(index_of(record) * 128 + i);
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (xsave)
        cr4 |= CR4_OSXSAVE;
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    record->features |= FEATURE_SSE;
    if (!xsave) {
        load_xmm(&area->known[slot_offset(SLOT_XMM)]);
        area->slot = SLOT_XMM;
        return;
    }
    record->features |= FEATURE_XSAVE;
    if (features.ecx & 1 << 28) {
        record->features |= FEATURE_AVX;
        ymm_offset = cpuid(0xd, 2).ebx;
        xcr0 |= 4;
    }
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)xcr0), "d"(0));
    area->known[0] = 0x037full | 0xffull << 32;  // x87 control word, all eight registers in use
    area->known[1] = area->known[2] = 0;
    area->known[3] = 0x7f80;                     // MXCSR: all masked, rounding toward zero
    for (uint32_t slot = SLOT_X87; slot < SLOT_XMM; slot++) {
        area->known[slot_offset(slot)] |= 1ull << 63;
        area->known[slot_offset(slot) + 1] = 0x3ff0 + slot;  // a normal number
    }
    for (uint32_t i = 0; i < 8; i++)
        area->known[64 + i] = 0;
    area->known[64] = xcr0;
    load_extended(area->known);
}

/// What was found becomes what is known: one event, one damage.
static void compare_vector(struct vcpu_record *record, uint32_t slot, uint32_t word, uint64_t mask)
{
    struct vector_area *area = &vectors[index_of(record)];
    uint64_t known = area->known[word], found = area->found[word] & mask;
    if (found == known)
        return;
    damage(record, DAMAGE_VECTOR, slot, known, found);
    area->known[word] = found;
}

void check_vector(struct vcpu_record *record)
{
    struct vector_area *area = &vectors[index_of(record)];
    if (!(record->features & FEATURE_SSE))
        return;
    uint32_t slot = area->slot, at = slot_offset(slot);
    if (record->features & FEATURE_XSAVE)
        store_extended(area->found);
    else
        store_one_xmm(&area->found[at], slot - SLOT_XMM);
    if (slot == 0) {
        compare_vector(record, slot, 0, ~0ull);
        compare_vector(record, slot, 3, 0xffffffff);
    } else {
        compare_vector(record, slot, at, ~0ull);
        compare_vector(record, slot, at + 1, slot < SLOT_XMM ? 0xffff : ~0ull);
    }
    record->vector_checks++;
    if (++slot == SLOTS || (slot == SLOT_YMM && !(record->features & FEATURE_AVX)))
        slot = record->features & FEATURE_XSAVE ? 0 : SLOT_XMM;
    area->slot = slot;
}

// System registers. Those with a value are set to it (mixed with the number of the vCPU); what they and the others read as at boot is
// what they must read as ever after.

enum kind { CONTROL, DEBUG, MODEL, XCR, LOCAL_APIC, IO_APIC, PORT };
enum need { ALWAYS, SYSENTER, SYSCALL, RDTSCP, ATTRIBUTES, XSAVE, FIRST };  // FIRST: a device, looked at by vCPU 0

static const struct item {
    uint8_t kind, need;
    uint32_t number;
    uint64_t value, mix;  // value 0: only looked at; mix: bits that differ between vCPUs
} items[] = {
    { CONTROL, ALWAYS, 0, 0, 0 },
    { CONTROL, ALWAYS, 2, 0x00005a5a12340000, 0xffff },
    { CONTROL, ALWAYS, 3, 0, 0 },
    { CONTROL, ALWAYS, 4, 0, 0 },
    { DEBUG, ALWAYS, 0, 0x0000111111110000, 0xffff },
    { DEBUG, ALWAYS, 1, 0x0000222222220000, 0xffff },
    { DEBUG, ALWAYS, 2, 0x0000333333330000, 0xffff },
    { DEBUG, ALWAYS, 3, 0x0000444444440000, 0xffff },
    { DEBUG, ALWAYS, 7, 0, 0 },
    { MODEL, ALWAYS, MSR_APIC_BASE, 0, 0 },
    { MODEL, ALWAYS, MSR_EFER, 0, 0 },
    { MODEL, ALWAYS, MSR_FS_BASE, 0x00007abc00000000, 0xffffffff },
    { MODEL, ALWAYS, MSR_GS_BASE, 0, 0 },
    { MODEL, ALWAYS, MSR_KERNEL_GS_BASE, 0x00007bcd00000000, 0xffffffff },
    { MODEL, SYSENTER, MSR_SYSENTER_CS, 0x0100, 0xf8 },
    { MODEL, SYSENTER, MSR_SYSENTER_ESP, 0x00007cde00000000, 0xffffffff },
    { MODEL, SYSENTER, MSR_SYSENTER_EIP, 0x00007def00000000, 0xffffffff },
    { MODEL, SYSCALL, MSR_STAR, 0x0023001000000000, 0xffffffff },
    { MODEL, SYSCALL, MSR_LSTAR, 0x00007ef000000000, 0xffffffff },
    { MODEL, SYSCALL, MSR_CSTAR, 0x00007f0100000000, 0xffffffff },
    { MODEL, SYSCALL, MSR_SFMASK, 0x00040000, 0x7fd5 },
    { MODEL, RDTSCP, MSR_TSC_AUX, 0x7a000000, 0xffffff },
    { MODEL, ATTRIBUTES, MSR_PAT, 0x0007010600070406, 0 },
    { XCR, XSAVE, 0, 0, 0 },
    { LOCAL_APIC, ALWAYS, 0x020, 0, 0 },  // identity
    { LOCAL_APIC, ALWAYS, 0x080, 0, 0 },  // task priority
    { LOCAL_APIC, ALWAYS, 0x0d0, 0x01000000, 0xfe000000 },  // logical destination
    { LOCAL_APIC, ALWAYS, 0x0e0, 0, 0 },  // destination format
    { LOCAL_APIC, ALWAYS, 0x0f0, 0, 0 },  // spurious vector
    { LOCAL_APIC, ALWAYS, 0x320, 0, 0 },  // timer
    { LOCAL_APIC, ALWAYS, 0x350, 0, 0 },  // LINT0
    { LOCAL_APIC, ALWAYS, 0x360, 0, 0 },  // LINT1
    { LOCAL_APIC, ALWAYS, 0x370, 0, 0 },  // error
    { LOCAL_APIC, ALWAYS, 0x380, 0, 0 },  // initial count
    { LOCAL_APIC, ALWAYS, 0x3e0, 0, 0 },  // divide configuration
    { IO_APIC, FIRST, 0x00, 0, 0 },       // identity
    { IO_APIC, FIRST, 0x14, 0, 0 },       // PIT, low and high
    { IO_APIC, FIRST, 0x15, 0, 0 },
    { PORT, FIRST, 0x021, 0, 0 },         // interrupt masks of the legacy controllers
    { PORT, FIRST, 0x0a1, 0, 0 },
    { PORT, FIRST, 0x3f9, 0, 0 },         // COM1: interrupt enable, line control, modem control, scratch
    { PORT, FIRST, 0x3fb, 0, 0 },
    { PORT, FIRST, 0x3fc, 0, 0 },
    { PORT, FIRST, 0x3ff, 0xa5, 0 },
};
enum { ITEMS = sizeof items / sizeof *items };
_Static_assert(ITEMS <= 64, "system_mask");

static uint64_t known[EVIDENCE_MAX_VCPUS][ITEMS];
static uint8_t next_item[EVIDENCE_MAX_VCPUS];

#define READ(register) __asm__ volatile("mov %%" register ", %0" : "=r"(value))
#define WRITE(register) __asm__ volatile("mov %0, %%" register : : "r"(value))

static uint64_t read_item(const struct item *item)
{
    uint64_t value = 0;
    uint32_t low, high;
    switch (item->kind) {
    case CONTROL:
        switch (item->number) {
        case 0: READ("cr0"); break;
        case 2: READ("cr2"); break;
        case 3: READ("cr3"); break;
        case 4: READ("cr4"); break;
        }
        return value;
    case DEBUG:
        switch (item->number) {
        case 0: READ("dr0"); break;
        case 1: READ("dr1"); break;
        case 2: READ("dr2"); break;
        case 3: READ("dr3"); break;
        case 7: READ("dr7"); break;
        }
        return value;
    case MODEL: return rdmsr(item->number);
    case XCR:
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(item->number));
        return (uint64_t)high << 32 | low;
    case LOCAL_APIC: return lapic_read(item->number);
    case IO_APIC: return ioapic_read(item->number);
    default: return inb((uint16_t)item->number);
    }
}

static void write_item(const struct item *item, uint64_t value)
{
    switch (item->kind) {
    case CONTROL: WRITE("cr2"); break;
    case DEBUG:
        switch (item->number) {
        case 0: WRITE("dr0"); break;
        case 1: WRITE("dr1"); break;
        case 2: WRITE("dr2"); break;
        case 3: WRITE("dr3"); break;
        }
        break;
    case MODEL: wrmsr(item->number, value); break;
    case LOCAL_APIC: lapic_write(item->number, (uint32_t)value); break;
    case PORT: outb((uint16_t)item->number, (uint8_t)value); break;
    }
}

static bool available(const struct vcpu_record *record, enum need need)
{
    switch (need) {
    case ALWAYS: return true;
    case SYSENTER: return cpuid(1, 0).edx & 1 << 11;
    case SYSCALL: return cpuid(0x80000001, 0).edx & 1 << 11;
    case RDTSCP: return cpuid(0x80000001, 0).edx & 1 << 27;
    case ATTRIBUTES: return cpuid(1, 0).edx & 1 << 16;
    case XSAVE: return record->features & FEATURE_XSAVE;
    default: return index_of(record) == 0;
    }
}

/// What a register is set to.
static uint64_t known_value(uint32_t index, uint32_t i)
{
    uint64_t value = items[i].value + (pattern(index * 64 + i) & items[i].mix);
    // KVM saves 32 bits of SYSENTER_ESP and _EIP unless the processor claims to be Intel's (svm_get_msr): AMD's have no SYSENTER in long mode.
    return items[i].need == SYSENTER && cpuid(0, 0).ebx != 0x756e6547 ? (uint32_t)value : value;
}

/// After everything else of this vCPU was set up; with interrupts off.
void system_start(struct vcpu_record *record)
{
    uint32_t index = index_of(record);
    for (uint32_t i = 0; i < ITEMS; i++) {
        const struct item *item = &items[i];
        if (!available(record, item->need))
            continue;
        uint64_t value = known_value(index, i);
        if (item->value)
            write_item(item, value);
        known[index][i] = read_item(item);
        if (!item->value || known[index][i] == value)
            record->system_mask |= 1ull << i;
    }
}

void check_system(struct vcpu_record *record)
{
    uint32_t index = index_of(record), i = next_item[index];
    if (record->system_mask >> i & 1) {
        uint64_t value = read_item(&items[i]);
        if (value != known[index][i])
            damage(record, DAMAGE_SYSTEM, i, known[index][i], value);
        known[index][i] = value;
        record->system_checks++;
    }
    next_item[index] = i + 1 < ITEMS ? (uint8_t)(i + 1) : 0;
}

/// Fills memory and vector registers. That takes long: before the timers are started.
void patterns_start(struct vcpu_record *record)
{
    memory_start(record);
    vector_start(record);
}
