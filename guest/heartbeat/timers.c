// Interrupts: descriptor table, local APIC, I/O APIC, PIT, and the account of timer ticks.
#include "heartbeat.h"

enum { VECTOR_PIT = 0x30, VECTOR_TIMER = 0x40, VECTOR_SPURIOUS = 0xff };
enum {
    LAPIC = 0xfee00000,
    LAPIC_EOI = 0xb0,
    LAPIC_SPURIOUS = 0xf0,
    LAPIC_COMMAND = 0x300,
    LAPIC_DESTINATION = 0x310,
    LAPIC_TIMER = 0x320,
    LAPIC_LINT0 = 0x350,
    LAPIC_LINT1 = 0x360,
    LAPIC_INITIAL_COUNT = 0x380,
    LAPIC_DIVIDE = 0x3e0,
    LAPIC_MASKED = 1 << 16,
};
enum { IOAPIC = 0xfec00000, IOAPIC_PIT = 0x10 + 2 * 2 };
enum { PIT_HZ = 1193182 };

static struct { uint64_t low, high; } idt[256];

uint32_t lapic_read(uint32_t offset) { return *(volatile uint32_t *)(uintptr_t)(LAPIC + offset); }
void lapic_write(uint32_t offset, uint32_t value) { *(volatile uint32_t *)(uintptr_t)(LAPIC + offset) = value; }

uint32_t ioapic_read(uint32_t index)
{
    *(volatile uint32_t *)IOAPIC = index;
    return *(volatile uint32_t *)(IOAPIC + 0x10);
}

static void ioapic_write(uint32_t index, uint32_t value)
{
    *(volatile uint32_t *)IOAPIC = index;
    *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static void set_gate(uint32_t vector, const void *entry)
{
    uint64_t address = (uintptr_t)entry;
    idt[vector].low = (address & 0xffff) | 8 << 16 | 0x8eull << 40 | (address >> 16 & 0xffff) << 48;
    idt[vector].high = address >> 32;
}

/// Fills the table, and silences the controllers that are not used.
void interrupts_install(void)
{
    for (uint32_t vector = 0; vector < 32; vector++)
        set_gate(vector, exception_entries[vector]);
    for (uint32_t vector = 32; vector < 256; vector++)
        set_gate(vector, stray_entry);
    set_gate(VECTOR_PIT, pit_entry);
    set_gate(VECTOR_TIMER, timer_entry);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void interrupts_load(void)
{
    struct __attribute__((packed)) { uint16_t limit; uint64_t base; } pointer = { sizeof idt - 1, (uintptr_t)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void lapic_start(void)
{
    lapic_write(LAPIC_SPURIOUS, 0x100 | VECTOR_SPURIOUS);
    lapic_write(LAPIC_LINT0, LAPIC_MASKED);
    lapic_write(LAPIC_LINT1, LAPIC_MASKED);
    lapic_write(LAPIC_TIMER, LAPIC_MASKED);
}

void lapic_send(uint32_t index, uint32_t command)
{
    lapic_write(LAPIC_DESTINATION, index << 24);
    lapic_write(LAPIC_COMMAND, command);
}

static void ticker_start(struct ticker *ticker, uint32_t kind, uint64_t period)
{
    ticker->period = period;
    ticker->started = rdtsc();
    ticker->due = ticker->started + period;
    ticker->last = ticker->started;
    ticker->ticks = ticker->expected = ticker->stall = 0;
    WRITE_ONCE(ticker->kind, kind);
}

/// Accounts for one interrupt.
static void ticker_tick(struct ticker *ticker, uint64_t now)
{
    uint64_t period = ticker->period, half = period / 2, missed = 0;
    if (now + half < ticker->due) {
        ticker->doubled++;
        return;
    }
    if (now > ticker->due) {
        uint64_t late = now - ticker->due;
        if (late > ticker->late_max)
            ticker->late_max = late;
        // A deadline stands until it is taken. A periodic timer goes on: of the ticks due meanwhile only one is delivered.
        if (late >= period && ticker->kind != TICKER_DEADLINE)
            missed = late / period;
    } else if (ticker->kind != TICKER_DEADLINE) {
        ticker->due = now;
    }
    if (missed) {
        if (missed * period <= ticker->stall + half)
            ticker->lost_in_stall += missed;
        else
            ticker->lost += missed;
    }
    // A periodic timer runs by a clock the hypervisor may slew against the TSC. Its phase is that of the promptest ticks: pulled
    // back by them above, let go here by 1/4096.
    ticker->due += period * (missed + 1);
    if (ticker->kind != TICKER_DEADLINE)
        ticker->due += period >> 12;
    ticker->ticks++;
    ticker->expected = (now - ticker->started + half) / period;
    ticker->last = now;
    ticker->stall = 0;
}

void timer_interrupt(void)
{
    struct vcpu_record *record = this_record();
    struct ticker *ticker = &record->timer;
    uint64_t now = note_time(record);
    record->interrupts++;
    if (ticker->kind != TICKER_OFF) {
        ticker_tick(ticker, now);
        if (ticker->kind == TICKER_DEADLINE)
            wrmsr(MSR_TSC_DEADLINE, ticker->due);
    }
    lapic_write(LAPIC_EOI, 0);
    note_time(record);
}

void pit_interrupt(void)
{
    struct vcpu_record *record = this_record();
    uint64_t now = note_time(record);
    record->interrupts++;
    if (machine->pit.kind != TICKER_OFF)
        ticker_tick(&machine->pit, now);
    lapic_write(LAPIC_EOI, 0);
    note_time(record);
}

void stray_interrupt(void)
{
    struct vcpu_record *record = this_record();
    note_time(record);
    record->interrupts++;
    damage(record, DAMAGE_INTERRUPT, 0, 0, lapic_read(0x170));
    lapic_write(LAPIC_EOI, 0);
}

static bool wants_deadline(uint32_t index)
{
    if (!(cpuid(1, 0).ecx & 1 << 24))
        return false;
    return options.timer == TIMER_DEADLINE || (options.timer == TIMER_MIXED && index % 2 == 0);
}

/// Frequency of the LAPIC's bus clock in kHz: said by the hypervisor, else 1 GHz as KVM and QEMU have it.
static uint32_t bus_khz(void)
{
    uint32_t khz = 0;
    if (cpuid(0x40000000, 0).eax >= 0x40000010)
        khz = cpuid(0x40000010, 0).ebx;
    return khz ? khz : 1000000;
}

static void pit_start(void)
{
    uint32_t count = PIT_HZ / options.pit_hz;
    if (count > 0xffff)
        count = 0xffff;
    ioapic_write(IOAPIC_PIT + 1, 0);
    ioapic_write(IOAPIC_PIT, VECTOR_PIT);
    outb(0x43, 0x34);  // channel 0, mode 2
    outb(0x40, count & 0xff);
    outb(0x40, count >> 8);
    machine->pit.period_us = (uint32_t)(count * 1000000ull / PIT_HZ);
    ticker_start(&machine->pit, TICKER_PIT, machine->tsc_khz * 1000 * count / PIT_HZ);
}

/// Starts this vCPU's timers from now; with interrupts off.
void timers_start(struct vcpu_record *record)
{
    struct ticker *ticker = &record->timer;
    lapic_write(LAPIC_DIVIDE, 0xb);
    if (wants_deadline(index_of(record))) {
        ticker->period_us = options.deadline_us;
        record->features |= FEATURE_TSC_DEADLINE;
        lapic_write(LAPIC_TIMER, 2 << 17 | VECTOR_TIMER);
        ticker_start(ticker, TICKER_DEADLINE, tsc_from_us(ticker->period_us));
        wrmsr(MSR_TSC_DEADLINE, ticker->due);
    } else {
        ticker->period_us = options.periodic_us;
        lapic_write(LAPIC_TIMER, 1 << 17 | VECTOR_TIMER);
        ticker_start(ticker, TICKER_PERIODIC, tsc_from_us(ticker->period_us));
        lapic_write(LAPIC_INITIAL_COUNT, (uint32_t)((uint64_t)bus_khz() * ticker->period_us / 1000));
    }
    if (index_of(record) == 0 && options.pit_hz)
        pit_start();
}

/// Stops this vCPU's timers and takes what is still pending; with interrupts off.
void timers_stop(struct vcpu_record *record)
{
    WRITE_ONCE(record->timer.kind, TICKER_OFF);
    if (index_of(record) == 0)
        WRITE_ONCE(machine->pit.kind, TICKER_OFF);
    lapic_write(LAPIC_TIMER, LAPIC_MASKED);
    lapic_write(LAPIC_INITIAL_COUNT, 0);
    if (index_of(record) == 0)
        ioapic_write(IOAPIC_PIT, LAPIC_MASKED | VECTOR_PIT);
    interrupts_window();
    interrupts_window();
}

static bool overdue(const struct ticker *ticker, uint64_t now)
{
    int64_t patience = (int64_t)(4 * ticker->period);
    return ticker->kind != TICKER_OFF && (int64_t)(now - ticker->last) > patience && (int64_t)(now - ticker->due) > patience;
}

/// A tick that is long overdue and not even pending was lost: the timer has died, or its deadline was forgotten.
static bool silent(struct ticker *ticker, uint64_t now)
{
    if (!overdue(ticker, now))
        return false;
    interrupts_window();
    if (!overdue(ticker, now))
        return false;
    ticker->lost++;
    ticker->due += ticker->period;
    return true;
}

/// Sees to it that a timer that fell silent is noticed, and armed again if that is up to the guest.
void timers_check(struct vcpu_record *record)
{
    interrupts_off();
    uint64_t now = note_time(record);
    if (silent(&record->timer, now) && record->timer.kind == TICKER_DEADLINE)
        wrmsr(MSR_TSC_DEADLINE, record->timer.due);
    if (index_of(record) == 0)
        silent(&machine->pit, now);
    interrupts_on();
}
