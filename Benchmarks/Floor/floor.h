// What a handover costs at least: one program, two VMs on the same memory, the state of one written into the other.
#ifndef FLOOR_H
#define FLOOR_H
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../guest/heartbeat/evidence.h"

enum { MAX_VCPUS = 32, MAX_MSRS = 128, MAX_VECTORS = 64, XSAVE_ROOM = 65536, NESTED_ROOM = 16384 };

struct msrs { struct kvm_msrs head; struct kvm_msr_entry entries[MAX_MSRS]; };
struct cpuid { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; };

/// What baton-vmm saves of a vCPU (Sources/VMM/Saving/VCPUStateIO.swift), as KVM has it.
struct vcpu_state {
    struct kvm_mp_state mp;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    _Alignas(64) uint8_t xsave[XSAVE_ROOM];
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debug;
    struct kvm_lapic_state lapic;
    uint8_t nested[NESTED_ROOM];
    struct kvm_vcpu_events events;
    struct msrs msrs;
    uint64_t tsc_offset;
};

/// And of the machine; the PIT is here what its user-space one is there.
struct machine_state {
    struct kvm_irqchip chips[3];
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    uint64_t clock_tsc;
};

/// What a host's KVM has beyond what all have, and which MSRs belong to the machine.
struct features {
    bool sregs2, xcrs, offset;
    int xsave_size, nested_size, tsc_khz;
    uint32_t saved[MAX_MSRS], saved_count;
    struct cpuid cpuid;
    bool known;
};

struct vm;
struct vcpu {
    struct vm *vm;
    int fd, index;
    struct kvm_run *run;
    pthread_t thread;
    int tid;
    _Atomic uint32_t started;      // its thread has been told to restore
    int64_t left_ns, entered_ns;   // CLOCK_MONOTONIC: out of the guest, just before the first KVM_RUN
};

struct vm {
    int fd, count;
    struct vcpu vcpus[MAX_VCPUS];
    _Atomic uint32_t parked;       // asked to stop
    struct vm *next;               // what its state goes to
    _Atomic uint32_t arrived, go;  // vCPUs that have done their part; all may run
    _Atomic uint32_t over;         // its threads end
};

extern struct features features;
extern struct vcpu_state vcpu_states[MAX_VCPUS];
extern struct machine_state machine_state;
extern uint8_t *ram;
extern uint64_t ram_size;
extern int cpus[MAX_VCPUS], cpu_count;

_Noreturn void fail(const char *what);
void call(int fd, unsigned long request, void *argument, const char *what);
int64_t now_ns(void);

// machine.c
void load_guest(const char *path, const char *command_line);
struct vm *make_vm(int count);
void start_at_entry(struct vm *vm);
void destroy_vm(struct vm *vm);
bool handle_exit(struct vcpu *vcpu);

// state.c
void save_vcpu(struct vcpu *vcpu, struct vcpu_state *state);
void restore_vcpu(struct vcpu *vcpu, struct vcpu_state *state);
void save_machine(struct vm *vm);
void restore_machine(struct vm *vm);
#endif
