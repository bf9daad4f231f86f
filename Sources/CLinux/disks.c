#define _GNU_SOURCE
#include "clinux_disks.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int cl_file_identity(int fd, struct cl_file_identity *identity) {
    struct stat status;
    if (fstat(fd, &status)) return -errno;
    if (S_ISBLK(status.st_mode)) {
        // Two nodes of one device are the same disk.
        *identity = (struct cl_file_identity){ .kind = CL_FILE_BLOCK, .minor_part = status.st_rdev };
    } else {
        *identity = (struct cl_file_identity){
            .kind = S_ISREG(status.st_mode) ? CL_FILE_REGULAR : 0, .major_part = status.st_dev, .minor_part = status.st_ino,
        };
    }
    return 0;
}

static int64_t nanoseconds(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

int cl_file_stamp(int fd, struct cl_file_stamp *stamp) {
    struct stat status;
    if (fstat(fd, &status)) return -errno;
    *stamp = (struct cl_file_stamp){ .size = status.st_size, .modified = nanoseconds(status.st_mtim), .changed = nanoseconds(status.st_ctim) };
    return 0;
}

int cl_lock_file(int fd, int for_writing, int *holder) {
    struct flock lock = { .l_type = for_writing ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    *holder = -1;
    if (!fcntl(fd, F_OFD_SETLK, &lock)) return 0;
    if (errno != EAGAIN && errno != EACCES) return -errno;
    lock = (struct flock){ .l_type = for_writing ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    if (!fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK) *holder = lock.l_pid;
    return -EAGAIN;
}

int cl_is_locked_by_others(int fd) {
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_GETLK, &lock)) return -errno;
    return lock.l_type != F_UNLCK;
}

int cl_tap_open(int fd, const char *name, int multiqueue) {
    struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multiqueue ? IFF_MULTI_QUEUE : 0)) };
    if (strlen(name) >= sizeof request.ifr_name) return -ENAMETOOLONG;
    strcpy(request.ifr_name, name);
    if (ioctl(fd, TUNSETIFF, &request)) return -errno;
    int length = 12;
    return ioctl(fd, TUNSETVNETHDRSZ, &length) ? -errno : 0;
}

int64_t cl_read_link(const char *path, char *text, uint64_t room) {
    ssize_t n = readlink(path, text, room);
    return n < 0 ? -errno : (uint64_t)n == room ? -ENAMETOOLONG : n;
}

int64_t cl_list_directory(const char *path, char *names, uint64_t room) {
    DIR *directory = opendir(path);
    if (!directory) return -errno;
    uint64_t used = 0;
    int error = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (!entry) {
            error = errno;
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        uint64_t length = strlen(entry->d_name) + 1;
        if (length > room - used) {
            error = ENAMETOOLONG;
            break;
        }
        memcpy(names + used, entry->d_name, length);
        used += length;
    }
    closedir(directory);
    return error ? -error : (int64_t)used;
}

int cl_remove_socket(const char *path) {
    struct stat status;
    if (lstat(path, &status)) return -errno;
    if (!S_ISSOCK(status.st_mode)) return -ENOTSOCK;
    return unlink(path) ? -errno : 0;
}

int64_t cl_peek(int socket, void *buffer, uint64_t length) {
    ssize_t n;
    do n = recv(socket, buffer, length, MSG_PEEK | MSG_DONTWAIT); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
