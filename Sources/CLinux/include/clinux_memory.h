#ifndef CLINUX_MEMORY_H
#define CLINUX_MEMORY_H
#include <stddef.h>
#include <stdint.h>

#define CL_SEAL_SEAL 0x01
#define CL_SEAL_SHRINK 0x02
#define CL_SEAL_GROW 0x04
#define CL_SEAL_WRITE 0x08
#define CL_MFD_EXEC 0x10u                                   // executable memfd, Linux 6.3; retried without on EINVAL
#define CL_MFD_NOEXEC_SEAL 0x08u
#define CL_MADV_POPULATE_READ 22
#define CL_MADV_POPULATE_WRITE 23

int cl_memfd(const char *name, unsigned flags);             // CLOEXEC and ALLOW_SEALING always on
int cl_truncate(int fd, int64_t length);
int cl_punch_hole(int fd, int64_t offset, int64_t length);
int cl_add_seals(int fd, int seals);
int cl_get_seals(int fd);
int cl_map(int fd, int64_t offset, size_t length, int writable, void **address);
int cl_map_aligned(int fd, size_t length, size_t alignment, void **address);  // shared, writable, address aligned
int cl_unmap(void *address, size_t length);
int cl_advise(void *address, size_t length, int advice);
int64_t cl_send_file(int destination, int source, size_t length);

// Words shared between processes and futexes within one.
uint64_t cl_load64(const void *address);
void cl_store64(void *address, uint64_t value);
// 1 when `expected` was there and `desired` has been stored, 0 otherwise with the value found in *expected.
int cl_exchange64(void *address, uint64_t *expected, uint64_t desired);
uint32_t cl_load32(const void *address);
void cl_store32(void *address, uint32_t value);
uint16_t cl_load16(const void *address);                                       // acquire
void cl_store16(void *address, uint16_t value);                                // release
void cl_fence(void);                                                           // sequentially consistent
int cl_futex_wait(void *address, uint32_t value, int64_t timeout_ns);         // 0, -EAGAIN, -EINTR, -ETIMEDOUT
int cl_futex_wake(void *address, int count);
// Of those who wait on one word, those whose mask has a bit in common with the waker's.
int cl_futex_wait_as(void *address, uint32_t value, uint32_t mask);            // as cl_futex_wait
int cl_futex_wake_those(void *address, uint32_t mask);
// For 64-bit words that processes share: waits while the low 32 bits are those of `value`; wakes everybody.
int cl_word_wait(void *address, uint64_t value, int64_t timeout_ns);          // as cl_futex_wait
int cl_word_wake(void *address);

// Bulk copies that the compiler may not merge with other accesses to memory a guest changes.
void cl_copy_in(void *destination, const void *source, size_t length);
int cl_is_same(const void *one, const void *other, size_t length);  // 1 or 0
#endif
