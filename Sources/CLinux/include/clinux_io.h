#ifndef CLINUX_IO_H
#define CLINUX_IO_H
#include <stddef.h>
#include <stdint.h>

// What readv(2) and its like take: struct iovec with an address of 64 bits.
struct cl_vector { uint64_t address, length; };
#define CL_VECTORS 1024                                     // IOV_MAX: the kernel takes no more in one call

// Reads into, or writes from, the vectors; of a file at `offset`, of a stream with -1. Retries EINTR; may move less than asked.
int64_t cl_transfer(int fd, int writing, const struct cl_vector *vectors, unsigned count, int64_t offset);

// Disks: regular files and block devices.
#define CL_FILE_REGULAR 1
#define CL_FILE_BLOCK 2
int cl_file_kind(int fd);                                   // one of those, 0 for anything else
int64_t cl_capacity(int fd);                                // bytes
int cl_block_size(int fd);                                  // logical: of a block device what it says (BLKSSZGET), of a file 512
int cl_data_sync(int fd);                                   // fdatasync
int cl_zero_range(int fd, int64_t offset, int64_t length);  // fallocate: zeros, room kept. -EOPNOTSUPP
int64_t cl_write_zeroes(int fd, int64_t offset, int64_t length);  // by writing them; how many, 64 KiB at most

// A queue of a tap (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE).
int cl_tap_set_offloads(int fd, unsigned offloads);         // TUNSETOFFLOAD, TUN_F_*
int cl_tap_attach(int fd, int on);                          // TUNSETQUEUE; -EINVAL when it is so already

// epoll(7), for input only. With `edge`, each arrival wakes one of the threads that wait, whether or not anything was read.
int cl_epoll(void);
int cl_epoll_add(int epoll, int fd, int edge);
int cl_epoll_wait(int epoll);                               // 1, or -errno
int cl_epoll_remove(int epoll, int fd);
int cl_epoll_ready(int epoll, int *numbers, int room);     // those that are ready now, without waiting; at most 64 at a time
#endif
