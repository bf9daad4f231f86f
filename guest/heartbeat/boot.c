// Start of the machine and of each vCPU, and the main loop.
#include "heartbeat.h"

enum { TRAMPOLINE = 0x10000, COMMAND_INIT = 0x4500, COMMAND_STARTUP = 0x4600 };

/// What the PVH boot protocol passes (struct hvm_start_info of the Xen headers).
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp;
    // from version 1 on
    uint64_t memory_map;
    uint32_t entries;
};

struct memory_map_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

enum { RAM = 1, RANGES = 4, MAPPED_GIB = 64 };

/// What of RAM is touched and walked: from 16 MiB on, as much as the command line says.
static struct { uint64_t begin, end; } ranges[RANGES];
/// Page tables for what is above the four gigabytes of entry.S: 2 MiB pages.
static _Alignas(4096) uint64_t high_pages[MAPPED_GIB - 4][512];
extern uint64_t pdpt[512];

_Alignas(16) char stacks[EVIDENCE_MAX_VCPUS][STACK_SIZE];
struct options options = { .vcpus = 1, .deadline_us = 10000, .periodic_us = 50000, .pit_hz = 20, .report_ms = 1000 };

void *memset(void *destination, int byte, uint64_t size)
{
    void *result = destination;
    __asm__ volatile("rep stosb" : "+D"(destination), "+c"(size) : "a"(byte) : "memory");
    return result;
}

void *memcpy(void *destination, const void *source, uint64_t size)
{
    void *result = destination;
    __asm__ volatile("rep movsb" : "+D"(destination), "+S"(source), "+c"(size) : : "memory");
    return result;
}

bool kvm_signature(uint32_t *base)
{
    for (*base = 0x40000000; *base < 0x40000200; *base += 0x100) {
        struct cpuid leaf = cpuid(*base, 0);
        if (leaf.ebx == 0x4b4d564b && leaf.ecx == 0x564b4d56 && leaf.edx == 0x4d)  // "KVMKVMKVM"
            return true;
    }
    return false;
}

/// The text after `key=` when `text` begins with that.
static const char *value_of(const char *text, const char *key)
{
    while (*key && *text == *key)
        text++, key++;
    return *key || *text != '=' ? 0 : text + 1;
}

static void parse_word(const char *word)
{
    static const struct { const char *key; uint32_t *value; } numbers[] = {
        { "vcpus", &options.vcpus }, { "deadline-us", &options.deadline_us }, { "periodic-us", &options.periodic_us },
        { "pit-hz", &options.pit_hz }, { "report-ms", &options.report_ms }, { "exit-after-s", &options.exit_after_s },
        { "reset-after-s", &options.reset_after_s }, { "touch-mib", &options.touch_mib }, { "halt", &options.halt },
        { "ipi", &options.ipi },
    };
    const char *text;
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if ((text = value_of(word, numbers[i].key))) {
            uint32_t n = 0;
            for (; *text >= '0' && *text <= '9'; text++)
                n = n * 10 + (uint32_t)(*text - '0');
            *numbers[i].value = n;
        }
    }
    if ((text = value_of(word, "timer")))
        options.timer = *text == 'd' ? TIMER_DEADLINE : *text == 'p' ? TIMER_PERIODIC : TIMER_MIXED;
    if ((text = value_of(word, "park")))
        options.park = *text == '1';
}

static void parse(const char *line)
{
    while (line && *line) {
        parse_word(line);
        while (*line && *line != ' ')
            line++;
        while (*line == ' ')
            line++;
    }
    if (options.vcpus < 1)
        options.vcpus = 1;
    if (options.vcpus > EVIDENCE_MAX_VCPUS)
        options.vcpus = EVIDENCE_MAX_VCPUS;
    if (options.pit_hz && options.pit_hz < 19)
        options.pit_hz = 19;  // its counter has 16 bits
}

/// Stops writing to memory until the host lets go. KVM's own writes to the clock page are switched off too, so that a digest of the
/// whole memory stays the same.
static void park(struct vcpu_record *record)
{
    if (index_of(record) == 0)
        say("heartbeat parked\n");
    interrupts_off();
    timers_stop(record);
    clock_stop();
    WRITE_ONCE(record->state, STATE_PARKED);
    uint32_t parked = 1;
    __asm__ volatile("lock xaddl %0, %1" : "+r"(parked), "+m"(machine->parked) : : "memory");
    if (parked + 1 == READ_ONCE(machine->online))
        WRITE_ONCE(machine->state, STATE_PARKED);
    __asm__ volatile("1: pause\n\tcmpl $0, %0\n\tjne 1b" : : "m"(machine->park_request) : "cc", "memory");
    WRITE_ONCE(machine->state, STATE_RUNNING);
    atomic_add(&machine->parked, -1u);
    clock_start(record);
    record->last_tsc = rdtsc();
    timers_start(record);
    WRITE_ONCE(record->state, STATE_RUNNING);
    interrupts_on();
    if (index_of(record) == 0)
        say("heartbeat resumed\n");
}

static void forget(struct ticker *ticker)
{
    ticker->lost = ticker->lost_in_stall = ticker->lost_late = ticker->doubled = ticker->late_max = ticker->losses = 0;
    ticker->owed = 0;
}

/// How fast memory is: a read of each page, timed. It counts as a stop like any other.
static void walk_memory(void)
{
    uint32_t request = READ_ONCE(machine->walk_request);
    if (request == machine->walk_done)
        return;
    uint64_t begin = rdtsc();
    for (unsigned i = 0; i < RANGES; i++)
        for (uint64_t address = ranges[i].begin; address < ranges[i].end; address += 4096)
            (void)*(volatile uint64_t *)address;
    machine->walk_tsc = rdtsc() - begin;
    WRITE_ONCE(machine->walk_done, request);
}

/// Waits for the next interrupt, which is no stop.
static void halt(struct vcpu_record *record)
{
    interrupts_off();
    note_time(record);
    record->halting = 1;
    __asm__ volatile("sti\n\thlt" : : : "memory");
    look_at_time(record);
}

static void obey_host(struct vcpu_record *record)
{
    if (READ_ONCE(machine->park_request))
        park(record);
    if (index_of(record) == 0)
        walk_memory();
    uint32_t request = READ_ONCE(machine->reset_request);
    if (request == record->reset_done)
        return;
    interrupts_off();
    record->gap_max = record->clock_diff_max = record->clock_back_max = 0;
    forget(&record->timer);
    if (index_of(record) == 0)
        forget(&machine->pit);
    interrupts_on();
    WRITE_ONCE(record->reset_done, request);
}

static _Noreturn void run(struct vcpu_record *record)
{
    const uint64_t end = record->region + record->region_size;
    for (uint32_t round = 0;; round++) {
        beats(record);
        if (record->next_word == end)
            memory_pass_done(record);
        switch (round % 4) {
        case 0:
            clock_sample(record);
            ipis_check(record);
            break;
        case 1: check_vector(record); break;
        case 2: check_system(record); break;
        case 3:
            timers_check(record);
            obey_host(record);
            break;
        }
        look_at_time(record);
        if (index_of(record) == 0)
            report_serve(record);
        if (options.halt > (index_of(record) == 0))
            halt(record);
    }
}

static _Noreturn void start_vcpu(uint32_t index)
{
    struct vcpu_record *record = record_of(index);
    record->self = (uintptr_t)record;
    record->state = STATE_BOOTING;
    wrmsr(MSR_GS_BASE, (uintptr_t)record);
    interrupts_load();
    lapic_start();
    clock_start(record);
    record->stall_tsc = tsc_from_us(1000);
    patterns_start(record);
    timers_start(record);
    system_start(record);
    record->started = record->last_tsc = rdtsc();
    record->gap_max = 0;
    WRITE_ONCE(record->state, STATE_RUNNING);
    atomic_add(&machine->online, 1);
    if (index == 0)
        report_boot(record);
    interrupts_on();
    run(record);
}

void start_secondary(uint32_t index) { start_vcpu(index); }

/// INIT and a start-up IPI, one vCPU after the other: they share the trampoline's variables.
static void start_others(void)
{
    memcpy((void *)TRAMPOLINE, trampoline, (uint64_t)(trampoline_end - trampoline));
    for (uint32_t index = 1; index < options.vcpus; index++) {
        start_index = index;
        start_stack = stacks[index] + STACK_SIZE;
        lapic_send(index, COMMAND_INIT);
        delay_us(200);
        lapic_send(index, COMMAND_STARTUP | TRAMPOLINE >> 12);
        uint64_t begin = rdtsc();
        while (READ_ONCE(record_of(index)->state) == STATE_OFF && rdtsc() - begin < tsc_from_us(2000000))
            relax();
        if (READ_ONCE(record_of(index)->state) == STATE_OFF)
            say("heartbeat: a vCPU does not start\n");
    }
}

static void map_high(uint64_t end)
{
    for (uint64_t address = 4ull << 30; address < end; address += 2 << 20) {
        uint64_t gib = address >> 30, *table = high_pages[gib - 4];
        table[address >> 21 & 511] = address | 0x83;
        pdpt[gib] = (uint64_t)table | 7;
    }
}

/// `touch-mib` counts RAM, wherever it is: where it ends below the device hole and goes on above it is the machine's to say.
static void find_memory(const struct start_info *info)
{
    uint64_t left = options.touch_mib > 16 ? (uint64_t)(options.touch_mib - 16) << 20 : 0;
    const struct memory_map_entry *entry = (const struct memory_map_entry *)info->memory_map;
    for (uint32_t i = 0, n = 0; i < info->entries && n < RANGES && left; i++) {
        uint64_t begin = entry[i].address, end = begin + entry[i].size, most = (uint64_t)MAPPED_GIB << 30;
        begin = begin < 16 << 20 ? 16 << 20 : begin;
        end = end > most ? most : end;
        if (entry[i].type != RAM || end <= begin)
            continue;
        ranges[n].begin = begin;
        ranges[n].end = end - begin > left ? begin + left : end;
        left -= ranges[n].end - begin;
        map_high(ranges[n++].end);
    }
}

static void touch_memory(void)
{
    for (unsigned i = 0; i < RANGES; i++)
        for (uint64_t address = ranges[i].begin; address < ranges[i].end; address += 4096)
            *(volatile uint64_t *)address = address;
}

void boot(const struct start_info *info)
{
    memset((void *)EVIDENCE_BASE, 0, EVIDENCE_RECORD_SIZE * (1 + EVIDENCE_MAX_VCPUS));
    machine->version = EVIDENCE_VERSION;
    machine->record_size = EVIDENCE_RECORD_SIZE;
    machine->state = STATE_BOOTING;
    if (info->magic == 0x336ec578)
        parse((const char *)info->command_line);
    if (info->magic == 0x336ec578 && info->version >= 1)
        find_memory(info);
    machine->vcpus = options.vcpus;
    machine->park_request = options.park;
    console_start();
    interrupts_install();
    interrupts_load();
    clock_find();
    WRITE_ONCE(machine->magic, EVIDENCE_MAGIC);
    touch_memory();
    lapic_start();
    start_others();
    WRITE_ONCE(machine->state, STATE_RUNNING);
    start_vcpu(0);
}
