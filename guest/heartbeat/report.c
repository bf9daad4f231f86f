// COM1: the line each period, damage as soon as it is seen, and the power device.
#include "heartbeat.h"

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, TRANSMITTER_EMPTY = 0x20 };
enum { PM1_STATUS = 0x600, POWER_BUTTON = 1 << 8, PM1_ABSENT = 0xffff };
enum { PM1_CONTROL = 0x604, SOFT_OFF = 5 << 10 | 1 << 13 };
enum { RESET_CONTROL = 0xcf9, RESET = 6 };
enum { RING = 4096 };

// Text waits here and leaves one character per round of the main loop, so that printing is not itself a gap.
static char ring[RING];
static uint32_t head, tail;
static struct vcpu_record *talker;
static uint64_t next_report, damage_told[EVIDENCE_MAX_VCPUS], machine_damage_told;

void console_start(void)
{
    static const uint8_t settings[][2] = { { 1, 0 }, { 3, 0x80 }, { 0, 1 }, { 1, 0 }, { 3, 3 }, { 2, 7 }, { 4, 3 } };
    for (unsigned i = 0; i < sizeof settings / sizeof *settings; i++)
        outb(COM1 + settings[i][0], settings[i][1]);
}

static bool console_drain(void)
{
    if (tail == head)
        return false;
    if (inb(LINE_STATUS) & TRANSMITTER_EMPTY)
        outb(COM1, (uint8_t)ring[tail++ % RING]);
    return true;
}

static void put(char c)
{
    if (head - tail < RING)
        ring[head++ % RING] = c;
    if (talker)
        look_at_time(talker);
}

static void text(const char *s)
{
    for (; *s; s++)
        put(*s);
}

static void decimal(uint64_t n)
{
    char digits[20];
    uint32_t count = 0;
    do
        digits[count++] = (char)('0' + n % 10);
    while (n /= 10);
    while (count)
        put(digits[--count]);
}

static void hexadecimal(uint64_t n, uint32_t digits)
{
    while (digits--)
        put("0123456789abcdef"[n >> 4 * digits & 15]);
}

/// n thousandths.
static void thousandths(uint64_t n)
{
    decimal(n / 1000);
    put('.');
    n %= 1000;
    put((char)('0' + n / 100));
    put((char)('0' + n / 10 % 10));
    put((char)('0' + n % 10));
}

/// Prints at once, at the price of a gap: before there is a main loop, and where it stops.
void say(const char *s)
{
    struct vcpu_record *was = talker;
    talker = 0;
    text(s);
    while (console_drain())
        ;
    talker = was;
}

static void field(const char *name, uint64_t n)
{
    text(name);
    decimal(n);
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void report_line(const char *first)
{
    uint64_t count = 0, ticks = 0, lost = 0, stalled = 0, doubled = 0, gap = 0, diff = 0, sum = 0, regs = 0, memory = 0;
    uint64_t microseconds = nanoseconds(rdtsc()) / 1000;
    for (uint32_t i = 0; i < machine->vcpus; i++) {
        const struct vcpu_record *r = record_of(i);
        count += r->beats;
        ticks += r->timer.ticks;
        lost += r->timer.lost;
        stalled += r->timer.lost_in_stall + r->timer.lost_late;
        doubled += r->timer.doubled;
        gap = larger(gap, r->gap_max);
        diff = larger(diff, r->clock_diff_max);
        sum ^= r->pass_sum ^ r->pass_sum >> 32;
        if (r->damage && (r->damage_code == DAMAGE_MEMORY || r->damage_code == DAMAGE_MEMORY_SUM))
            memory++;
        else if (r->damage)
            regs++;
        look_at_time(talker ? talker : record_of(0));
    }
    const struct ticker *pit = &machine->pit;
    text(first);
    text(" t=");
    thousandths(microseconds / 1000);
    field("s vcpus=", machine->online);
    field(" beats=", count);
    field(" ticks=", ticks);
    field(" lost=", lost);
    field(" stalled=", stalled);
    field(" doubled=", doubled);
    field(" pit=", pit->ticks);
    field(" pitlost=", pit->lost);
    field(" pitstalled=", pit->lost_in_stall + pit->lost_late);
    field(" pitdoubled=", pit->doubled);
    text(" gap=");
    thousandths(gap * 1000 / machine->tsc_khz);
    field("ms clockdiff=", diff / 1000);
    text(memory ? "us mem=DAMAGED sum=" : "us mem=ok sum=");
    hexadecimal(sum & 0xffffffff, 8);
    text(regs ? " regs=DAMAGED" : " regs=ok");
    if (machine->damage)
        field(" damage=", machine->damage);
    put('\n');
    machine->reports++;
}

static void report_damage(void)
{
    static const char *const names[] = {
        [DAMAGE_NONE] = "nothing", [DAMAGE_MEMORY] = "memory", [DAMAGE_MEMORY_SUM] = "memory sum of pass", [DAMAGE_TSC] = "TSC went back",
        [DAMAGE_GENERAL] = "general register", [DAMAGE_VECTOR] = "vector register", [DAMAGE_SYSTEM] = "system register",
        [DAMAGE_EXCEPTION] = "exception", [DAMAGE_INTERRUPT] = "stray interrupt", [DAMAGE_IPI] = "interprocessor interrupt",
    };
    machine_damage_told = machine->damage;
    for (uint32_t i = 0; i < machine->vcpus; i++) {
        const struct vcpu_record *r = record_of(i);
        if (r->damage == damage_told[i])
            continue;
        damage_told[i] = r->damage;
        field("DAMAGE vcpu=", i);
        put(' ');
        text(names[r->damage_code]);
        text(" at 0x");
        hexadecimal(r->damage_where, 16);
        text(": expected 0x");
        hexadecimal(r->damage_expected, 16);
        text(", found 0x");
        hexadecimal(r->damage_found, 16);
        field(" tsc=", r->damage_tsc);
        field(" count=", r->damage);
        put('\n');
    }
}

static _Noreturn void end(bool resets, const char *why)
{
    talker = 0;
    interrupts_off();
    WRITE_ONCE(machine->state, STATE_POWERING_OFF);
    report_line(why);
    while (console_drain())
        ;
    if (resets)
        outb(RESET_CONTROL, RESET);
    else
        outw(PM1_CONTROL, SOFT_OFF);
    for (;;)
        __asm__ volatile("hlt");
}

/// Leaves with the first rounds of the main loop.
void report_boot(const struct vcpu_record *record)
{
    uint32_t has = record->features;
    field("heartbeat boot vcpus=", machine->vcpus);
    field(" tsc=", machine->tsc_khz);
    text(has & FEATURE_KVMCLOCK ? "kHz clock=kvmclock" : "kHz clock=none");
    text(has & FEATURE_TSC_DEADLINE ? " timer=deadline" : " timer=periodic");
    text(has & FEATURE_AVX ? " vector=avx\n" : has & FEATURE_XSAVE ? " vector=xsave\n" : has & FEATURE_SSE ? " vector=sse\n" : " vector=none\n");
}

static void report(void)
{
    uint16_t status = inw(PM1_STATUS);
    uint64_t seconds = nanoseconds(rdtsc()) / 1000000000;
    if (status != PM1_ABSENT && status & POWER_BUTTON)
        end(false, "heartbeat power-off asked for");
    if (options.exit_after_s && seconds >= options.exit_after_s)
        end(false, "heartbeat power-off");
    if (options.reset_after_s && seconds >= options.reset_after_s)
        end(true, "heartbeat reset");
    report_line("heartbeat");
}

/// vCPU 0's share of the console, once per round.
void report_serve(struct vcpu_record *record)
{
    if (console_drain())
        return;
    talker = record;
    if (READ_ONCE(machine->damage) != machine_damage_told)
        report_damage();
    if (!next_report)
        next_report = record->last_tsc + tsc_from_us(options.report_ms * 1000ull);
    if (record->last_tsc < next_report)
        return;
    next_report += tsc_from_us(options.report_ms * 1000ull);
    if (next_report < record->last_tsc)
        next_report = record->last_tsc;  // after a long stop one line is enough
    report();
}

/// The way of every exception; `frame` is the vector, a possible error code, and what the processor pushed.
_Noreturn void exception_taken(const uint64_t *frame)
{
    const uint32_t with_error_code = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 3 << 29;
    struct vcpu_record *record = this_record();
    uint64_t vector = frame[0];
    bool code = with_error_code >> vector & 1;
    if (!record)
        record = record_of(0);  // so early there is only one
    record->last_tsc = rdtsc();
    record->damage = 0;  // the end of a vCPU outranks what was found first
    damage(record, DAMAGE_EXCEPTION, frame[code ? 2 : 1], vector, code ? frame[1] : 0);
    WRITE_ONCE(record->state, STATE_DEAD);
    if (index_of(record) == 0) {
        WRITE_ONCE(machine->state, STATE_DEAD);
        talker = 0;
        report_damage();
        while (console_drain())
            ;
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}
