#ifndef CLINUX_DESCRIPTORS_H
#define CLINUX_DESCRIPTORS_H
#include <stddef.h>
#include <stdint.h>

int cl_close(int fd);
int cl_duplicate(int fd);                                   // F_DUPFD_CLOEXEC, lowest free number
int cl_status_flags(int fd);                                // F_GETFL
int cl_set_nonblocking(int fd, int on);
int64_t cl_read(int fd, void *buffer, size_t length);       // retries EINTR
int64_t cl_write(int fd, const void *buffer, size_t length);
int64_t cl_pread(int fd, void *buffer, size_t length, int64_t offset);
int64_t cl_size(int fd);                                    // st_size
int64_t cl_seek(int fd, int64_t offset, int whence);
int cl_is_regular_file(int fd);
int cl_same_file(int a, int b);                             // device and inode equal: 1 or 0

// openat2: `resolve` takes the RESOLVE_* bits below.
#define CL_RESOLVE_NO_MAGICLINKS 0x02
#define CL_RESOLVE_NO_SYMLINKS 0x04
#define CL_RESOLVE_BENEATH 0x08
int cl_openat2(int directory, const char *path, int flags, unsigned mode, uint64_t resolve);

int cl_eventfd(unsigned initial, int flags);
int cl_timerfd(int clock);
int cl_timerfd_set(int fd, int64_t first_ns, int64_t interval_ns, int absolute);

int cl_make_directory(const char *path, unsigned mode);
int cl_rename(const char *from, const char *to);
int cl_remove(const char *path);
int cl_exists(const char *path);
void cl_random(void *buffer, size_t length);                // getrandom, all of it

struct cl_poll { int fd; short events; short revents; };
#define CL_POLLIN 0x001
#define CL_POLLOUT 0x004
#define CL_POLLERR 0x008
#define CL_POLLHUP 0x010
// Milliseconds, -1 for ever. Number of ready entries, 0 at the time limit, -EINTR.
int cl_poll(struct cl_poll *entries, unsigned count, int64_t timeout_ns);
#endif
