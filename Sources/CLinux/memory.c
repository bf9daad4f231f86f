#define _GNU_SOURCE
#include "clinux_memory.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int cl_memfd(const char *name, unsigned flags) {
    int fd = (int)syscall(SYS_memfd_create, name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 && errno == EINVAL && (flags & CL_MFD_EXEC)) // before Linux 6.3 every memfd was executable
        fd = (int)syscall(SYS_memfd_create, name, (flags & ~CL_MFD_EXEC) | MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int cl_truncate(int fd, int64_t length) { return ftruncate(fd, length) ? -errno : 0; }

int cl_punch_hole(int fd, int64_t offset, int64_t length) {
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) ? -errno : 0;
}

int cl_add_seals(int fd, int seals) { return fcntl(fd, F_ADD_SEALS, seals) ? -errno : 0; }

int cl_get_seals(int fd) {
    int seals = fcntl(fd, F_GET_SEALS);
    return seals < 0 ? -errno : seals;
}

int cl_map(int fd, int64_t offset, size_t length, int writable, void **address) {
    void *p = mmap(NULL, length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, offset);
    if (p == MAP_FAILED) return -errno;
    *address = p;
    return 0;
}

int cl_map_aligned(int fd, size_t length, size_t alignment, void **address) {
    // Reserve more than needed, place the mapping at the first aligned address in it, give the rest back.
    size_t reserved = length + alignment;
    char *base = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -errno;
    char *start = (char *)(((uintptr_t)base + alignment - 1) & ~(uintptr_t)(alignment - 1));
    void *p = mmap(start, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        int error = errno;
        munmap(base, reserved);
        return -error;
    }
    if (start > base) munmap(base, (size_t)(start - base));
    if (base + reserved > start + length) munmap(start + length, (size_t)(base + reserved - (start + length)));
    *address = p;
    return 0;
}

int cl_unmap(void *address, size_t length) { return munmap(address, length) ? -errno : 0; }
int cl_advise(void *address, size_t length, int advice) { return madvise(address, length, advice) ? -errno : 0; }

int64_t cl_send_file(int destination, int source, size_t length) {
    ssize_t n;
    do n = sendfile(destination, source, NULL, length); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

uint64_t cl_load64(const void *address) { return __atomic_load_n((const uint64_t *)address, __ATOMIC_SEQ_CST); }
void cl_store64(void *address, uint64_t value) { __atomic_store_n((uint64_t *)address, value, __ATOMIC_SEQ_CST); }

int cl_exchange64(void *address, uint64_t *expected, uint64_t desired) {
    return __atomic_compare_exchange_n((uint64_t *)address, expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

uint32_t cl_load32(const void *address) { return __atomic_load_n((const uint32_t *)address, __ATOMIC_SEQ_CST); }
void cl_store32(void *address, uint32_t value) { __atomic_store_n((uint32_t *)address, value, __ATOMIC_SEQ_CST); }
uint16_t cl_load16(const void *address) { return __atomic_load_n((const uint16_t *)address, __ATOMIC_ACQUIRE); }
void cl_store16(void *address, uint16_t value) { __atomic_store_n((uint16_t *)address, value, __ATOMIC_RELEASE); }
void cl_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

int cl_futex_wait(void *address, uint32_t value, int64_t timeout_ns) {
    struct timespec limit = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    long r = syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, value, timeout_ns < 0 ? NULL : &limit, NULL, 0);
    return r ? -errno : 0;
}

int cl_futex_wake(void *address, int count) {
    long r = syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    return r < 0 ? -errno : (int)r;
}

int cl_futex_wait_as(void *address, uint32_t value, uint32_t mask) {
    return syscall(SYS_futex, address, FUTEX_WAIT_BITSET_PRIVATE, value, NULL, NULL, mask) ? -errno : 0;
}

int cl_futex_wake_those(void *address, uint32_t mask) {
    long r = syscall(SYS_futex, address, FUTEX_WAKE_BITSET_PRIVATE, INT32_MAX, NULL, NULL, mask);
    return r < 0 ? -errno : (int)r;
}

// The low half of a little-endian word; without PRIVATE, since other processes wait and wake.
int cl_word_wait(void *address, uint64_t value, int64_t timeout_ns) {
    struct timespec limit = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    long r = syscall(SYS_futex, address, FUTEX_WAIT, (uint32_t)value, timeout_ns < 0 ? NULL : &limit, NULL, 0);
    return r ? -errno : 0;
}

int cl_word_wake(void *address) {
    long r = syscall(SYS_futex, address, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    return r < 0 ? -errno : (int)r;
}

void cl_copy_in(void *destination, const void *source, size_t length) {
    memcpy(destination, source, length);
    __asm__ volatile("" ::: "memory");
}

int cl_is_same(const void *one, const void *other, size_t length) { return memcmp(one, other, length) == 0; }
