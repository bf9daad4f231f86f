#define _GNU_SOURCE
#include "clinux_io.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(struct cl_vector) == sizeof(struct iovec), "cl_vector mirrors iovec");

int64_t cl_transfer(int fd, int writing, const struct cl_vector *vectors, unsigned count, int64_t offset) {
    const struct iovec *v = (const struct iovec *)vectors;
    ssize_t n;
    do {
        if (offset < 0) n = writing ? writev(fd, v, (int)count) : readv(fd, v, (int)count);
        else n = writing ? pwritev(fd, v, (int)count, offset) : preadv(fd, v, (int)count, offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int cl_file_kind(int fd) {
    struct stat status;
    if (fstat(fd, &status)) return -errno;
    return S_ISREG(status.st_mode) ? CL_FILE_REGULAR : S_ISBLK(status.st_mode) ? CL_FILE_BLOCK : 0;
}

int64_t cl_capacity(int fd) {
    struct stat status;
    uint64_t bytes = 0;
    if (fstat(fd, &status)) return -errno;
    if (!S_ISBLK(status.st_mode)) return status.st_size;
    return ioctl(fd, BLKGETSIZE64, &bytes) ? -errno : (int64_t)bytes;
}

int cl_block_size(int fd) {
    int size = 512;
    if (cl_file_kind(fd) == CL_FILE_BLOCK && ioctl(fd, BLKSSZGET, &size)) return -errno;
    return size;
}

int cl_data_sync(int fd) { return fdatasync(fd) ? -errno : 0; }

int cl_zero_range(int fd, int64_t offset, int64_t length) {
    return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length) ? -errno : 0;
}

int64_t cl_write_zeroes(int fd, int64_t offset, int64_t length) {
    static const char zeroes[64 << 10] __attribute__((aligned(4096)));
    ssize_t n;
    do n = pwrite(fd, zeroes, length < (int64_t)sizeof zeroes ? (size_t)length : sizeof zeroes, offset); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int cl_tap_set_offloads(int fd, unsigned offloads) { return ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads) ? -errno : 0; }

int cl_tap_attach(int fd, int on) {
    struct ifreq request = { .ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };
    return ioctl(fd, TUNSETQUEUE, &request) ? -errno : 0;
}

int cl_epoll(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cl_epoll_add(int epoll, int fd, int edge) {
    struct epoll_event event = { .events = edge ? EPOLLIN | EPOLLET : EPOLLIN, .data.fd = fd };
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int cl_epoll_remove(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) ? -errno : 0; }

int cl_epoll_ready(int epoll, int *numbers, int room) {
    struct epoll_event events[64];
    int n = epoll_wait(epoll, events, room < 64 ? room : 64, 0);
    for (int i = 0; i < n; i++) numbers[i] = events[i].data.fd;
    return n < 0 ? -errno : n;
}

int cl_epoll_wait(int epoll) {
    struct epoll_event event;
    int n = epoll_wait(epoll, &event, 1, -1);
    return n < 0 ? -errno : n;
}
