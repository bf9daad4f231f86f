// What the parts of the guest share.
#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#define STACK_SIZE  8192
#define BEATS       8  // rounds of one call of beats()
#define REGION_SIZE 0x10000
#define WORD_STEP   0x9e3779b97f4a7c15  // between neighbouring words of the pattern
#define PASS_STEP   0xc2b2ae3d27d4eb4f  // between passes

#ifndef __ASSEMBLER__
#include <stdbool.h>

#include "../common/cpu.h"
#include "evidence.h"

struct options {
    uint32_t vcpus;
    enum { TIMER_MIXED, TIMER_DEADLINE, TIMER_PERIODIC } timer;
    uint32_t deadline_us, periodic_us, pit_hz, report_ms, exit_after_s, reset_after_s, touch_mib, halt, ipi;
    bool park;
};
extern struct options options;

static struct machine_record *const machine = (struct machine_record *)EVIDENCE_BASE;

static inline struct vcpu_record *record_of(uint32_t index)
{
    return (struct vcpu_record *)(uintptr_t)(EVIDENCE_BASE + EVIDENCE_RECORD_SIZE * (1 + index));
}

static inline uint32_t index_of(const struct vcpu_record *record)
{
    return (uint32_t)((uintptr_t)record - EVIDENCE_BASE) / EVIDENCE_RECORD_SIZE - 1;
}

/// The record of the vCPU this runs on: GS points at it.
static inline struct vcpu_record *this_record(void)
{
    struct vcpu_record *record;
    __asm__("mov %%gs:%c1, %0" : "=r"(record) : "i"(VCPU_SELF));
    return record;
}

// beat.S, entry.S, registers.S, vectors.S
void beats(struct vcpu_record *record);
void load_xmm(const void *values);
void store_one_xmm(void *value, uint32_t number);
void load_extended(const void *area);
void store_extended(void *area);
void timer_entry(void);
void pit_entry(void);
void ipi_entry(void);
extern const char exception_entries[32][8], stray_entries[224][16];
extern const char trampoline[], trampoline_end[];
extern char *start_stack;
extern uint64_t start_index;
extern char stacks[EVIDENCE_MAX_VCPUS][STACK_SIZE];

// boot.c
bool kvm_signature(uint32_t *base);

// checks.c
void patterns_start(struct vcpu_record *record);
void system_start(struct vcpu_record *record);
void memory_pass_done(struct vcpu_record *record);
void check_vector(struct vcpu_record *record);
void check_system(struct vcpu_record *record);
void damage(struct vcpu_record *record, enum heartbeat_damage code, uint64_t where, uint64_t expected, uint64_t found);
void gap_found(struct vcpu_record *record, uint64_t tsc, uint64_t gap);

// clock.c
void clock_find(void);
void clock_start(struct vcpu_record *record);
void clock_stop(void);
void clock_sample(struct vcpu_record *record);
uint64_t nanoseconds(uint64_t tsc);
static inline uint64_t tsc_from_us(uint64_t us) { return us * machine->tsc_khz / 1000; }
void delay_us(uint64_t us);

// report.c
void console_start(void);
void report_boot(const struct vcpu_record *record);
void report_serve(struct vcpu_record *record);
void say(const char *text);

// timers.c
void interrupts_install(void);
void interrupts_load(void);
void lapic_start(void);
void lapic_send(uint32_t index, uint32_t command);
uint32_t lapic_read(uint32_t offset);
void lapic_write(uint32_t offset, uint32_t value);
uint32_t ioapic_read(uint32_t index);
void timers_start(struct vcpu_record *record);
void timers_stop(struct vcpu_record *record);
void timers_check(struct vcpu_record *record);
void ipis_check(struct vcpu_record *record);

/// Reads the TSC and keeps account of the distance from the reading before; with interrupts off. Called often enough that no
/// stretch of the guest's own work is longer than a few dozen instructions.
static inline uint64_t note_time(struct vcpu_record *record)
{
    uint64_t now = rdtsc(), gap = now - record->last_tsc;
    record->last_tsc = now;
    if (record->halting) {
        record->halting = 0;
        return now;
    }
    if (gap > READ_ONCE(record->gap_max) || gap > record->stall_tsc)
        gap_found(record, now, gap);
    return now;
}

/// The same with interrupts on.
static inline uint64_t look_at_time(struct vcpu_record *record)
{
    interrupts_off();
    uint64_t now = note_time(record);
    interrupts_on();
    return now;
}
#endif
#endif
