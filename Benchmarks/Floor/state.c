// Reading and writing the state set, in the orders of baton-vmm.
#include "floor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

struct vcpu_state vcpu_states[MAX_VCPUS];
struct machine_state machine_state;

static void offset_attribute(int fd, unsigned long request, uint64_t *value)
{
    struct kvm_device_attr attribute = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)value };
    call(fd, request, &attribute, "the TSC offset");
}

void save_vcpu(struct vcpu *vcpu, struct vcpu_state *state)
{
    int fd = vcpu->fd;
    call(fd, KVM_GET_MP_STATE, &state->mp, "KVM_GET_MP_STATE");
    call(fd, KVM_GET_REGS, &state->regs, "KVM_GET_REGS");
    call(fd, features.sregs2 ? KVM_GET_SREGS2 : KVM_GET_SREGS, &state->sregs, "KVM_GET_SREGS2");
    call(fd, features.xsave_size > 4096 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state->xsave, "KVM_GET_XSAVE2");
    if (features.xcrs)
        call(fd, KVM_GET_XCRS, &state->xcrs, "KVM_GET_XCRS");
    call(fd, KVM_GET_DEBUGREGS, &state->debug, "KVM_GET_DEBUGREGS");
    state->msrs.head.nmsrs = features.saved_count;
    for (uint32_t i = 0; i < features.saved_count; i++)
        state->msrs.entries[i].index = features.saved[i];
    if (ioctl(fd, KVM_GET_MSRS, &state->msrs) != (int)features.saved_count)
        fail("KVM_GET_MSRS");
    if (features.offset)
        offset_attribute(fd, KVM_GET_DEVICE_ATTR, &state->tsc_offset);
    call(fd, KVM_GET_LAPIC, &state->lapic, "KVM_GET_LAPIC");
    if (features.nested_size) {
        ((struct kvm_nested_state *)state->nested)->size = (uint32_t)features.nested_size;
        call(fd, KVM_GET_NESTED_STATE, state->nested, "KVM_GET_NESTED_STATE");
    }
    call(fd, KVM_GET_VCPU_EVENTS, &state->events, "KVM_GET_VCPU_EVENTS");
}

void restore_vcpu(struct vcpu *vcpu, struct vcpu_state *state)
{
    int fd = vcpu->fd;
    call(fd, features.sregs2 ? KVM_SET_SREGS2 : KVM_SET_SREGS, &state->sregs, "KVM_SET_SREGS2");
    call(fd, KVM_SET_REGS, &state->regs, "KVM_SET_REGS");
    if (features.xcrs)
        call(fd, KVM_SET_XCRS, &state->xcrs, "KVM_SET_XCRS");
    call(fd, KVM_SET_XSAVE, state->xsave, "KVM_SET_XSAVE");
    call(fd, KVM_SET_DEBUGREGS, &state->debug, "KVM_SET_DEBUGREGS");
    call(fd, KVM_SET_LAPIC, &state->lapic, "KVM_SET_LAPIC");
    if (features.offset)
        offset_attribute(fd, KVM_SET_DEVICE_ATTR, &state->tsc_offset);
    // The deadline is the last of them: KVM ignores it unless the APIC is in deadline mode already.
    if (ioctl(fd, KVM_SET_MSRS, &state->msrs) != (int)state->msrs.head.nmsrs)
        fail("KVM_SET_MSRS");
    call(fd, KVM_SET_MP_STATE, &state->mp, "KVM_SET_MP_STATE");
    call(fd, KVM_SET_VCPU_EVENTS, &state->events, "KVM_SET_VCPU_EVENTS");
    if (features.nested_size)
        call(fd, KVM_SET_NESTED_STATE, state->nested, "KVM_SET_NESTED_STATE");
}

void save_machine(struct vm *vm)
{
    call(vm->fd, KVM_GET_CLOCK, &machine_state.clock, "KVM_GET_CLOCK");
    machine_state.clock_tsc = __builtin_ia32_rdtsc();
    for (uint32_t chip = 0; chip < 3; chip++) {
        machine_state.chips[chip].chip_id = chip;
        call(vm->fd, KVM_GET_IRQCHIP, &machine_state.chips[chip], "KVM_GET_IRQCHIP");
    }
    call(vm->fd, KVM_GET_PIT2, &machine_state.pit, "KVM_GET_PIT2");
}

void restore_machine(struct vm *vm)
{
    for (uint32_t chip = 0; chip < 3; chip++)
        call(vm->fd, KVM_SET_IRQCHIP, &machine_state.chips[chip], "KVM_SET_IRQCHIP");
    call(vm->fd, KVM_SET_PIT2, &machine_state.pit, "KVM_SET_PIT2");
    uint64_t ticks = __builtin_ia32_rdtsc() - machine_state.clock_tsc;
    struct kvm_clock_data clock = { .clock = machine_state.clock.clock + ticks * 1000000 / (uint64_t)features.tsc_khz };
    call(vm->fd, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK");
}
