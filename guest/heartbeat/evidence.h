// What the heartbeat guest says about itself: a block at a fixed guest-physical address that any host program may read while
// the guest runs. Everything is little-endian and naturally aligned. Offsets are numbers here because the assembly uses some of
// them; the C part of the guest asserts that the structures agree. docs/guest.md explains how to judge the values.
#ifndef HEARTBEAT_EVIDENCE_H
#define HEARTBEAT_EVIDENCE_H

#define EVIDENCE_BASE        0x20000
#define EVIDENCE_SIZE        0x10000
#define EVIDENCE_MAGIC       0x3142484e4f544142  // the bytes "BATONHB1"
#define EVIDENCE_VERSION     1
#define EVIDENCE_RECORD_SIZE 0x400  // the machine's record, then one per vCPU
#define EVIDENCE_MAX_VCPUS   32

// Offsets inside a vCPU's record that beat.S needs.
#define VCPU_BEATS      0x000
#define VCPU_LAST_TSC   0x008
#define VCPU_GAP_MAX    0x010
#define VCPU_STALL_TSC  0x020
#define VCPU_NEXT_WORD  0x048
#define VCPU_NEXT_VALUE 0x050
#define VCPU_SUM        0x058
#define VCPU_SELF       0x078
#define VCPU_STRAY      0x110

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

enum heartbeat_state { STATE_OFF, STATE_BOOTING, STATE_RUNNING, STATE_PARKED, STATE_POWERING_OFF, STATE_DEAD };

enum heartbeat_damage {
    DAMAGE_NONE,
    DAMAGE_MEMORY,      // where: address
    DAMAGE_MEMORY_SUM,  // where: number of the pass
    DAMAGE_TSC,         // the TSC went back; where: code address
    DAMAGE_GENERAL,     // where: number of the general register
    DAMAGE_VECTOR,      // where: number of the slot of the x87, SSE or AVX state
    DAMAGE_SYSTEM,      // where: number of the control, debug, model-specific, LAPIC or device register in checks.c
    DAMAGE_EXCEPTION,   // where: code address, expected: vector, found: error code; the vCPU is dead
    DAMAGE_INTERRUPT,   // where: vector nobody asked for
    DAMAGE_IPI,         // where: the vCPU it was sent to, expected: how many were, found: how many came
};

enum heartbeat_feature {
    FEATURE_KVMCLOCK = 1,
    FEATURE_TSC_DEADLINE = 2,
    FEATURE_SSE = 4,
    FEATURE_XSAVE = 8,
    FEATURE_AVX = 16,
};

enum heartbeat_ticker { TICKER_OFF, TICKER_DEADLINE, TICKER_PERIODIC, TICKER_PIT };

/// A timer whose interrupts are counted against the time that passed. Times are in units of the guest's TSC. A missing tick is counted in
/// one of three ways, and the host may judge again by the list of losses.
struct ticker {
    uint32_t kind;            // 0x00 heartbeat_ticker
    uint32_t period_us;       // 0x04
    uint64_t period;          // 0x08
    uint64_t ticks;           // 0x10 interrupts taken since the timer was started
    uint64_t expected;        // 0x18 periods that had passed at the last tick
    uint64_t lost;            // 0x20 missing although this vCPU ran and the next tick came in time: no excuse
    uint64_t lost_in_stall;   // 0x28 missing because this vCPU was stopped for about as long
    uint64_t lost_late;       // 0x30 missing because the timer itself was late, or the host so busy that it may have been
    uint64_t doubled;         // 0x38 came more than an eighth of a period too early, and none was owed
    uint64_t late_max;        // 0x40 largest delay of a tick
    uint64_t started;         // 0x48 when the timer was started
    uint64_t due;             // 0x50 when the next tick is due
    uint64_t last;            // 0x58 when the last tick was taken
    uint64_t stall;           // 0x60 largest stall of this vCPU since the last tick
    uint64_t losses;          // 0x68 entries ever made in the list below, the latest at index (losses - 1) % 8
    struct ticker_loss {
        uint64_t tsc;         // 0x00 when it was noticed
        uint64_t late;        // 0x08 how late the tick that was taken then came
        uint64_t stall;       // 0x10 largest stall since the tick before
        uint64_t missed;      // 0x18 ticks missing
    } loss[8];                // 0x70
    uint32_t owed;            // 0x170 of the ticks found missing last, how many may still come: then they were only late
    uint32_t owed_account;    // 0x174 offset of the counter they were counted in
};

/// The machine's record, at EVIDENCE_BASE.
struct machine_record {
    uint64_t magic;           // 0x000 written last while booting
    uint32_t version;         // 0x008
    uint32_t record_size;     // 0x00c
    uint32_t vcpus;           // 0x010 asked for
    uint32_t online;          // 0x014 running
    uint32_t state;           // 0x018 heartbeat_state
    uint32_t parked;          // 0x01c vCPUs parked now
    uint64_t tsc_khz;         // 0x020
    uint64_t boot_tsc;        // 0x028
    uint64_t boot_clock_ns;   // 0x030 kvmclock at boot_tsc; 0 without kvmclock
    uint32_t clock_mul;       // 0x038 TSC to nanoseconds as kvmclock defines it, fixed at boot
    int32_t clock_shift;      // 0x03c
    uint64_t reports;         // 0x040 lines printed
    uint64_t damage;          // 0x048 damage counted by all vCPUs
    uint64_t wall_sec;        // 0x050 kvmclock's wall clock at boot
    uint64_t wall_nsec;       // 0x058
    uint64_t reserved0[4];    // 0x060
    // Words the host writes and the guest only reads.
    uint32_t park_request;    // 0x080 not 0: every vCPU parks
    uint32_t reset_request;   // 0x084 changed: every vCPU clears its maxima and losses
    uint32_t walk_request;    // 0x088 changed: vCPU 0 reads a word of each page that touch-mib named
    uint32_t walk_done;       // 0x08c the walk_request obeyed last; the guest writes it and what follows
    uint64_t walk_tsc;        // 0x090 how long that took
    uint64_t reserved1[13];   // 0x098
    struct ticker pit;        // 0x100 taken by vCPU 0
    uint8_t reserved2[0x188];
};

/// One vCPU's record, at EVIDENCE_BASE + EVIDENCE_RECORD_SIZE * (1 + index). Only that vCPU writes it,
/// with the one exception named.
struct vcpu_record {
    uint64_t beats;           // 0x000 rounds of the main loop
    uint64_t last_tsc;        // 0x008 latest reading
    uint64_t gap_max;         // 0x010 largest distance between two readings; the host may write 0
    uint64_t gap_tsc;         // 0x018 the reading after that gap
    uint64_t stall_tsc;       // 0x020 a gap larger than this is a stall; the host may write it
    uint64_t stalls;          // 0x028
    uint64_t stalled;         // 0x030 sum of all stalls
    uint64_t started;         // 0x038 first reading
    uint64_t region;          // 0x040 guest-physical address of the memory being checked
    uint64_t next_word;       // 0x048 address of the next word to verify and rewrite
    uint64_t next_value;      // 0x050 what it must hold
    uint64_t sum;             // 0x058 sum of the words verified in this pass
    uint64_t passes;          // 0x060 passes over the region verified
    uint64_t pass_sum;        // 0x068 sum found by the last complete pass
    uint64_t region_size;     // 0x070
    uint64_t self;            // 0x078 address of this record
    uint64_t sample_sequence; // 0x080 odd while the next two change
    uint64_t sample_tsc;      // 0x088
    uint64_t sample_clock_ns; // 0x090 kvmclock at that TSC
    int64_t clock_diff_ns;    // 0x098 kvmclock minus (TSC since boot as nanoseconds), latest
    uint64_t clock_diff_max;  // 0x0a0 largest absolute value of it
    uint64_t clock_back_max;  // 0x0a8 largest step back between two kvmclock readings, ns
    uint64_t interrupts;      // 0x0b0 taken, of any kind
    uint64_t vector_checks;   // 0x0b8 x87, SSE and AVX slots compared
    uint64_t system_checks;   // 0x0c0 control, debug, model-specific, LAPIC and device registers compared
    uint64_t system_mask;     // 0x0c8 which of them took the known value at boot and are compared since
    uint32_t state;           // 0x0d0 heartbeat_state
    uint32_t features;        // 0x0d4 heartbeat_feature bits
    uint32_t reset_done;      // 0x0d8 the reset_request obeyed last
    uint32_t halting;         // 0x0dc the next reading of the TSC ends a halt, which is no gap
    uint64_t damage;          // 0x0e0 damage counted
    uint32_t damage_code;     // 0x0e8 the first damage: heartbeat_damage
    uint32_t reserved2;       // 0x0ec
    uint64_t damage_where;    // 0x0f0
    uint64_t damage_expected; // 0x0f8
    uint64_t damage_found;    // 0x100
    uint64_t damage_tsc;      // 0x108
    uint32_t stray_vector;    // 0x110 the last one nobody asked for
    uint32_t reserved3;       // 0x114
    uint64_t ipis_sent;       // 0x118 to the next vCPU
    uint64_t ipis_taken;      // 0x120 from the one before
    uint64_t reserved5[11];   // 0x128
    struct ticker timer;      // 0x180 the LAPIC timer
    uint64_t reserved4;       // 0x2f8
    struct stall {
        uint64_t tsc;         // 0x00 the reading after it
        uint64_t gap;         // 0x08
    } stall[16];              // 0x300 the latest at index (stalls - 1) % 16
};

_Static_assert(sizeof(struct ticker) == 0x178, "ticker");
_Static_assert(sizeof(struct machine_record) == EVIDENCE_RECORD_SIZE, "machine record");
_Static_assert(sizeof(struct vcpu_record) == EVIDENCE_RECORD_SIZE, "vCPU record");
_Static_assert(offsetof(struct machine_record, pit) == 0x100, "pit");
_Static_assert(offsetof(struct machine_record, park_request) == 0x80, "host words");
_Static_assert(offsetof(struct vcpu_record, beats) == VCPU_BEATS, "beats");
_Static_assert(offsetof(struct vcpu_record, last_tsc) == VCPU_LAST_TSC, "last_tsc");
_Static_assert(offsetof(struct vcpu_record, gap_max) == VCPU_GAP_MAX, "gap_max");
_Static_assert(offsetof(struct vcpu_record, stall_tsc) == VCPU_STALL_TSC, "stall_tsc");
_Static_assert(offsetof(struct vcpu_record, next_word) == VCPU_NEXT_WORD, "next_word");
_Static_assert(offsetof(struct vcpu_record, next_value) == VCPU_NEXT_VALUE, "next_value");
_Static_assert(offsetof(struct vcpu_record, sum) == VCPU_SUM, "sum");
_Static_assert(offsetof(struct vcpu_record, self) == VCPU_SELF, "self");
_Static_assert(offsetof(struct vcpu_record, stray_vector) == VCPU_STRAY, "stray_vector");
_Static_assert(offsetof(struct vcpu_record, sample_sequence) == 0x80, "sample");
_Static_assert(offsetof(struct vcpu_record, damage) == 0xe0, "damage");
_Static_assert(offsetof(struct vcpu_record, timer) == 0x180, "timer");
#endif
#endif
