// Interrupts: descriptor table, local APIC, I/O APIC, PIT, and the accounts of timer ticks and of what vCPUs send each other.
#include "heartbeat.h"

enum { VECTOR_PIT = 0x30, VECTOR_TIMER = 0x40, VECTOR_IPI = 0x50, VECTOR_SPURIOUS = 0xff };
enum {
    LAPIC = 0xfee00000,
    LAPIC_EOI = 0xb0,
    LAPIC_SPURIOUS = 0xf0,
    LAPIC_IN_SERVICE = 0x100,
    LAPIC_REQUESTS = 0x200,
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
        set_gate(vector, stray_entries[vector - 32]);
    set_gate(VECTOR_PIT, pit_entry);
    set_gate(VECTOR_TIMER, timer_entry);
    set_gate(VECTOR_IPI, ipi_entry);
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
    ticker->ticks = ticker->expected = ticker->stall = ticker->owed = 0;
    WRITE_ONCE(ticker->kind, kind);
}

static bool lapic_has(uint32_t registers, uint32_t vector)
{
    return lapic_read(registers + vector / 32 * 16) >> vector % 32 & 1;
}

/// Ticks are missing: whose fault? One that fell victim to a stop of the host is followed by one that comes at any odd time, when the
/// stop ends. One that was dropped is followed by the next in time, and nothing else was amiss.
static void ticker_missed(struct ticker *ticker, uint64_t now, uint64_t late, uint64_t missed)
{
    uint64_t period = ticker->period, *account = &ticker->lost;
    struct ticker_loss *loss = &ticker->loss[ticker->losses % 8];
    loss->tsc = now;
    loss->late = late;
    loss->stall = ticker->stall;
    loss->missed = missed;
    ticker->losses++;
    if (missed * period <= ticker->stall + period / 2)
        account = &ticker->lost_in_stall;
    else if (late % period > period / 16 || ticker->stall > period / 4)
        account = &ticker->lost_late;
    *account += missed;
    ticker->owed += (uint32_t)missed;
    ticker->owed_account = (uint32_t)((uintptr_t)account - (uintptr_t)ticker);
}

/// Another vCPU may note a stop just after the tick that it delayed: what counted as lost then is the host's fault.
static void ticker_excuse(struct ticker *ticker)
{
    const struct ticker_loss *loss = &ticker->loss[(ticker->losses - 1) % 8];
    if (!ticker->losses || loss->tsc != ticker->last || READ_ONCE(ticker->stall) <= ticker->period / 4)
        return;
    if (ticker->owed_account != offsetof(struct ticker, lost) || ticker->lost < loss->missed)
        return;
    ticker->lost -= loss->missed;
    ticker->lost_late += loss->missed;
    ticker->owed_account = offsetof(struct ticker, lost_late);
}

/// Too early: one that was believed lost a moment ago, or one too many.
static void ticker_early(struct ticker *ticker)
{
    if (ticker->owed) {
        uint64_t *account = (uint64_t *)((uintptr_t)ticker + ticker->owed_account);
        // Owed from two stops that went to different accounts: what is not in the newer one is in the older.
        if (*account == 0)
            account = ticker->lost_in_stall ? &ticker->lost_in_stall : ticker->lost_late ? &ticker->lost_late : &ticker->lost;
        if (*account)
            --*account;
        ticker->owed--;
        ticker->ticks++;
    } else {
        ticker->doubled++;
    }
}

/// Accounts for one interrupt.
static void ticker_tick(struct ticker *ticker, uint32_t vector, uint64_t now)
{
    uint64_t period = ticker->period, late = now > ticker->due ? now - ticker->due : 0;
    if (now + period / 8 < ticker->due) {
        ticker_early(ticker);
        return;
    }
    if (late > ticker->late_max)
        ticker->late_max = late;
    if (ticker->kind == TICKER_DEADLINE) {
        ticker->due += period;  // a deadline stands until its tick is taken: none may be missing, ever
    } else {
        uint64_t missed = late / period;
        ticker_excuse(ticker);
        if (missed && lapic_has(LAPIC_REQUESTS, vector))
            missed--;
        // A busy host makes up for what is owed among the ticks that are due, and takes its time.
        if (ticker->owed && now - ticker->loss[(ticker->losses - 1) % 8].tsc > 8 * period)
            ticker->owed = 0;
        if (missed)
            ticker_missed(ticker, now, late, missed);
        // A periodic timer runs by a clock the hypervisor may slew against the TSC. Its phase is that of the promptest ticks: pulled
        // back by them, let go by 1/4096.
        if (!late)
            ticker->due = now;
        ticker->due += period * (missed + 1) + (period >> 12);
    }
    ticker->ticks++;
    ticker->expected = (now - ticker->started + period / 2) / period;
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
        ticker_tick(ticker, VECTOR_TIMER, now);
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
        ticker_tick(&machine->pit, VECTOR_PIT, now);
    lapic_write(LAPIC_EOI, 0);
    note_time(record);
}

void ipi_interrupt(void)
{
    struct vcpu_record *record = this_record();
    note_time(record);
    record->interrupts++;
    record->ipis_taken++;
    lapic_write(LAPIC_EOI, 0);
}

void stray_interrupt(void)
{
    struct vcpu_record *record = this_record();
    note_time(record);
    record->interrupts++;
    damage(record, DAMAGE_INTERRUPT, record->stray_vector, 0, 0);
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

static struct watch {
    uint64_t ticks, since;
} watches[EVIDENCE_MAX_VCPUS + 1];

/// Whether a timer has been mute for long, in time this vCPU was running: a host that is slow to deliver is no crime.
static bool mute(const struct vcpu_record *record, const struct ticker *ticker, struct watch *watch, uint64_t now)
{
    uint64_t running = now - record->stalled, patience = 4 * ticker->period + tsc_from_us(200000);
    if (ticker->kind == TICKER_OFF || ticker->ticks != watch->ticks || (int64_t)(now - ticker->due) < 0 || !watch->since) {
        watch->ticks = ticker->ticks;
        watch->since = running;
    }
    return running - watch->since > patience;
}

/// A deadline that is neither armed nor pending any more. Interrupts are off, so a tick that came is still in the request register.
static bool forgotten(const struct ticker *ticker, uint64_t now)
{
    return ticker->kind == TICKER_DEADLINE && (int64_t)(now - ticker->due) > (int64_t)ticker->period && !rdmsr(MSR_TSC_DEADLINE) &&
        !lapic_has(LAPIC_REQUESTS, VECTOR_TIMER) && !lapic_has(LAPIC_IN_SERVICE, VECTOR_TIMER);
}

static void write_off(struct ticker *ticker, uint64_t now)
{
    uint64_t missed = (now - ticker->due) / ticker->period;
    ticker->lost += missed;
    ticker->due += missed * ticker->period;
}

/// Sees to it that a timer that fell silent is noticed, and armed again if that is up to the guest.
void timers_check(struct vcpu_record *record)
{
    uint32_t index = index_of(record);
    struct ticker *ticker = &record->timer;
    interrupts_off();
    uint64_t now = note_time(record);
    if (mute(record, ticker, &watches[index], now) || forgotten(ticker, now)) {
        write_off(ticker, now);
        if (ticker->kind == TICKER_DEADLINE)
            wrmsr(MSR_TSC_DEADLINE, ticker->due);
    }
    if (index == 0 && mute(record, &machine->pit, &watches[EVIDENCE_MAX_VCPUS], now))
        write_off(&machine->pit, now);
    interrupts_on();
}

/// What both vCPUs had done when the latest one was sent.
static struct sending {
    uint64_t mine, its;
} sendings[EVIDENCE_MAX_VCPUS];

/// Sends the next vCPU an interrupt when the one before has been taken. One that is not, however much both have done since, is lost.
void ipis_check(struct vcpu_record *record)
{
    enum { PATIENCE = 100000 };  // beats
    uint32_t index = index_of(record), to = (index + 1) % options.vcpus;
    struct sending *sending = &sendings[index];
    struct vcpu_record *next = record_of(to);
    if (!options.ipi || READ_ONCE(machine->online) < options.vcpus)
        return;
    uint64_t taken = READ_ONCE(next->ipis_taken), its = READ_ONCE(next->beats);
    bool waits = taken + 1 == record->ipis_sent && (record->beats - sending->mine < PATIENCE || its - sending->its < PATIENCE);
    if (waits)
        return;
    if (taken != record->ipis_sent)
        damage(record, DAMAGE_IPI, to, record->ipis_sent, taken);
    sending->mine = record->beats;
    sending->its = its;
    WRITE_ONCE(record->ipis_sent, taken + 1);
    interrupts_off();
    lapic_send(to, VECTOR_IPI);
    interrupts_on();
}
