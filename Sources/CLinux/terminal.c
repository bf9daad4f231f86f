#define _GNU_SOURCE
#include "clinux_terminal.h"
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

_Static_assert(sizeof(struct termios) <= sizeof(struct cl_terminal_mode), "a terminal's mode fits");

int cl_is_terminal(int fd) { return isatty(fd) ? 1 : 0; }

int cl_terminal_width(int fd) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size)) return -errno;
    return size.ws_col;
}

int cl_terminal_raw(int fd, struct cl_terminal_mode *before) {
    struct termios mode;
    if (tcgetattr(fd, &mode)) return -errno;
    memset(before, 0, sizeof *before);
    memcpy(before->bytes, &mode, sizeof mode);
    cfmakeraw(&mode);
    return tcsetattr(fd, TCSADRAIN, &mode) ? -errno : 0;
}

int cl_terminal_restore(int fd, const struct cl_terminal_mode *before) {
    struct termios mode;
    memcpy(&mode, before->bytes, sizeof mode);
    return tcsetattr(fd, TCSADRAIN, &mode) ? -errno : 0;
}

uint32_t cl_effective_uid(void) { return geteuid(); }

int cl_shutdown(int fd, int both_ways) { return shutdown(fd, both_ways ? SHUT_RDWR : SHUT_WR) ? -errno : 0; }
