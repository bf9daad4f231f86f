#define _GNU_SOURCE
#include "clinux_descriptors.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

int cl_close(int fd) { return close(fd) ? -errno : 0; }

int cl_duplicate(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

int cl_status_flags(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -errno : flags;
}

int cl_set_nonblocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) ? -errno : 0;
}

int64_t cl_read(int fd, void *buffer, size_t length) {
    ssize_t n;
    do n = read(fd, buffer, length); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t cl_write(int fd, const void *buffer, size_t length) {
    ssize_t n;
    do n = write(fd, buffer, length); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t cl_pread(int fd, void *buffer, size_t length, int64_t offset) {
    ssize_t n;
    do n = pread(fd, buffer, length, offset); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t cl_size(int fd) {
    struct stat status;
    return fstat(fd, &status) ? -errno : status.st_size;
}

int64_t cl_seek(int fd, int64_t offset, int whence) {
    off_t position = lseek(fd, offset, whence);
    return position < 0 ? -errno : position;
}

int cl_is_regular_file(int fd) {
    struct stat status;
    return fstat(fd, &status) ? -errno : S_ISREG(status.st_mode);
}

int cl_same_file(int a, int b) {
    struct stat left, right;
    if (fstat(a, &left) || fstat(b, &right)) return -errno;
    return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

int cl_openat2(int directory, const char *path, int flags, unsigned mode, uint64_t resolve) {
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .mode = mode, .resolve = resolve };
    long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

int cl_eventfd(unsigned initial, int flags) {
    int fd = eventfd(initial, flags | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cl_timerfd(int clock) {
    int fd = timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static struct timespec from_ns(int64_t ns) {
    return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

int cl_timerfd_set(int fd, int64_t first_ns, int64_t interval_ns, int absolute) {
    struct itimerspec when = { .it_value = from_ns(first_ns), .it_interval = from_ns(interval_ns) };
    return timerfd_settime(fd, absolute ? TFD_TIMER_ABSTIME : 0, &when, NULL) ? -errno : 0;
}

int cl_poll(struct cl_poll *entries, unsigned count, int64_t timeout_ns) {
    _Static_assert(sizeof(struct cl_poll) == sizeof(struct pollfd), "cl_poll mirrors pollfd");
    struct timespec limit = from_ns(timeout_ns < 0 ? 0 : timeout_ns);
    int n = ppoll((struct pollfd *)entries, count, timeout_ns < 0 ? NULL : &limit, NULL);
    return n < 0 ? -errno : n;
}

int cl_make_directory(const char *path, unsigned mode) { return mkdir(path, mode) ? -errno : 0; }
int cl_rename(const char *from, const char *to) { return rename(from, to) ? -errno : 0; }
int cl_remove(const char *path) { return unlink(path) ? -errno : 0; }
int cl_exists(const char *path) { return access(path, F_OK) == 0; }
void cl_random(void *buffer, size_t length) {
    size_t done = 0;
    while (done < length) {
        long n = syscall(SYS_getrandom, (char *)buffer + done, length - done, 0);
        if (n > 0) done += (size_t)n;
    }
}
