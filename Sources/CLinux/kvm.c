#define _GNU_SOURCE
#include "clinux_kvm.h"
#include "clinux_threads.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

int cl_kvm_call(int fd, unsigned long request, unsigned long argument) {
    int r = ioctl(fd, request, argument);
    return r < 0 ? -errno : r;
}

int cl_kvm_call_with(int fd, unsigned long request, void *argument) {
    int r = ioctl(fd, request, argument);
    return r < 0 ? -errno : r;
}

static int attribute_call(int vcpu, unsigned long request, uint32_t group, uint64_t attribute, uint64_t *value) {
    struct kvm_device_attr call = { .group = group, .attr = attribute, .addr = (uint64_t)(uintptr_t)value };
    return ioctl(vcpu, request, &call) < 0 ? -errno : 0;
}

int cl_kvm_get_attribute(int vcpu, uint32_t group, uint64_t attribute, uint64_t *value) {
    return attribute_call(vcpu, KVM_GET_DEVICE_ATTR, group, attribute, value);
}

int cl_kvm_set_attribute(int vcpu, uint32_t group, uint64_t attribute, uint64_t value) {
    return attribute_call(vcpu, KVM_SET_DEVICE_ATTR, group, attribute, &value);
}

int cl_kvm_create_vfio(int vm) {
    struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
    return ioctl(vm, KVM_CREATE_DEVICE, &create) < 0 ? -errno : (int)create.fd;
}

int cl_kvm_vfio_add(int device, int file) {
    int32_t number = file;
    struct kvm_device_attr call = { .group = KVM_DEV_VFIO_GROUP, .attr = KVM_DEV_VFIO_GROUP_ADD, .addr = (uint64_t)(uintptr_t)&number };
    return ioctl(device, KVM_SET_DEVICE_ATTR, &call) < 0 ? -errno : 0;
}

static int set_signal_mask(int vcpu, const sigset_t *mask) {
    if (!mask) return ioctl(vcpu, KVM_SET_SIGNAL_MASK, NULL) ? -errno : 0;
    struct { uint32_t length; unsigned char bytes[8]; } argument = { .length = 8 };
    memcpy(argument.bytes, mask, 8);                        // the kernel's sigset_t is the first 64 bits of libc's
    return ioctl(vcpu, KVM_SET_SIGNAL_MASK, &argument) ? -errno : 0;
}

int cl_kvm_run_with_pending_signal(int vcpu) {
    sigset_t kick, before, during;
    sigemptyset(&kick);
    sigaddset(&kick, CL_KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, &before);
    during = before;
    sigdelset(&during, CL_KICK_SIGNAL);
    int r = set_signal_mask(vcpu, &during);
    if (!r) {
        // Without the signal the guest would run: EAGAIN, where this user has too many pending (RLIMIT_SIGPENDING).
        r = -pthread_kill(pthread_self(), CL_KICK_SIGNAL);
        if (!r) r = ioctl(vcpu, KVM_RUN, 0) ? -errno : 1;
        if (r == -EINTR) r = 0;
        struct timespec now = { 0, 0 };
        while (sigtimedwait(&kick, NULL, &now) > 0) { }
        set_signal_mask(vcpu, NULL);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

void cl_kvm_decode_exit(const void *address, struct cl_kvm_exit_detail *out) {
    const struct kvm_run *run = address;
    memset(out, 0, sizeof *out);
    out->reason = run->exit_reason;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        out->size = run->io.size;
        out->count = run->io.count;
        out->is_write = run->io.direction == KVM_EXIT_IO_OUT;
        out->address = run->io.port;
        out->offset = run->io.data_offset;
        break;
    case KVM_EXIT_MMIO:
        out->size = run->mmio.len;
        out->count = 1;
        out->is_write = run->mmio.is_write;
        out->address = run->mmio.phys_addr;
        memcpy(&out->data, run->mmio.data, sizeof out->data);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        out->address = run->fail_entry.hardware_entry_failure_reason;
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        out->address = run->internal.suberror;
        out->data = run->internal.ndata ? run->internal.data[0] : 0;
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        out->address = run->system_event.type;
        break;
    default:
        break;
    }
}

uint32_t cl_kvm_internal_error_data(const void *address, uint64_t data[16]) {
    const struct kvm_run *run = address;
    if (run->exit_reason != KVM_EXIT_INTERNAL_ERROR) return 0;
    uint32_t count = run->internal.ndata > 16 ? 16 : run->internal.ndata;
    memcpy(data, run->internal.data, count * sizeof *data);
    return count;
}

int cl_kvm_immediate_exit(void *run) { return __atomic_load_n(&((struct kvm_run *)run)->immediate_exit, __ATOMIC_SEQ_CST); }

void cl_kvm_set_immediate_exit(void *run, int on) {
    __atomic_store_n(&((struct kvm_run *)run)->immediate_exit, (uint8_t)(on != 0), __ATOMIC_SEQ_CST);
}

uint64_t cl_kvm_load(const void *run, uint64_t offset, uint32_t size) {
    uint64_t value = 0;
    memcpy(&value, (const char *)run + offset, size > 8 ? 8 : size);
    return value;
}

void cl_kvm_store(void *run, uint64_t offset, uint32_t size, uint64_t value) {
    memcpy((char *)run + offset, &value, size > 8 ? 8 : size);
}

uint64_t cl_kvm_mmio_offset(void) { return offsetof(struct kvm_run, mmio.data); }
