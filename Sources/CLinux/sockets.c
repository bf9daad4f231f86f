#define _GNU_SOURCE
#include "clinux_sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int cl_seqpacket_pair(int ends[2]) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) return -errno;
    int size = 1 << 20;                                     // room for the largest message; a refusal leaves the default
    for (int i = 0; i < 2; i++) setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return 0;
}

int cl_stream_pair(int ends[2], int buffer) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) return -errno;
    if (buffer) for (int i = 0; i < 2; i++) setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    return 0;
}

static int address_of(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

int cl_connect(const char *path) {
    struct sockaddr_un address;
    int r = address_of(path, &address);
    if (r) return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int cl_listen(const char *path, unsigned mode) {
    struct sockaddr_un address;
    int r = address_of(path, &address);
    if (r) return r;
    int live = cl_connect(path);
    if (live >= 0) {
        close(live);
        return -EADDRINUSE;
    }
    struct stat status;
    if (!lstat(path, &status) && S_ISSOCK(status.st_mode)) unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    // Linux gives the file what the socket has, less the umask. That belongs to the whole process, whose other threads make files too: it is left alone,
    // and what it has taken away is added afterwards.
    r = fchmod(fd, mode & 0777) || bind(fd, (struct sockaddr *)&address, sizeof address) ? -errno : 0;
    if (!r && (chmod(path, mode & 0777) || listen(fd, 64))) r = -errno;
    if (r) {
        close(fd);
        return r;
    }
    return fd;
}

int cl_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int cl_peer(int fd, struct cl_peer *peer) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length)) return -errno;
    *peer = (struct cl_peer){ .pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid };
    return 0;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * CL_MAXIMUM_DESCRIPTORS)];
};

int64_t cl_send(int fd, const void *bytes, size_t length, const int *descriptors, unsigned count, int dont_wait) {
    if (count > CL_MAXIMUM_DESCRIPTORS) return -EINVAL;
    struct iovec data = { .iov_base = (void *)bytes, .iov_len = length };
    union control control;
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), descriptors, sizeof(int) * count);
    }
    ssize_t n;
    do n = sendmsg(fd, &message, MSG_NOSIGNAL | (dont_wait ? MSG_DONTWAIT : 0)); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t cl_receive(int fd, void *buffer, size_t room, int *descriptors, unsigned *count, int dont_wait) {
    unsigned limit = *count;
    *count = 0;
    struct iovec data = { .iov_base = buffer, .iov_len = room };
    union control control;
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control,
    };
    ssize_t n;
    do n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | (dont_wait ? MSG_DONTWAIT : 0)); while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    int whole = !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        unsigned arrived = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < arrived; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(c) + i * sizeof(int), sizeof descriptor);
            if (whole && *count < limit) {
                descriptors[(*count)++] = descriptor;
            } else {
                close(descriptor);
                whole = 0;
            }
        }
    }
    if (whole) return n;
    for (unsigned i = 0; i < *count; i++) close(descriptors[i]);
    *count = 0;
    return -EPROTO;
}
