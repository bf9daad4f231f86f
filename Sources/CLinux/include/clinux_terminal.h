#ifndef CLINUX_TERMINAL_H
#define CLINUX_TERMINAL_H
#include <stdint.h>

int cl_is_terminal(int fd);                                 // 1 or 0
int cl_terminal_width(int fd);                              // columns; -errno when it is no terminal

// What a terminal was like before, for putting it back.
struct cl_terminal_mode { unsigned char bytes[64]; };
// Raw: every byte passes as typed, signals included. The mode before is stored in *before.
int cl_terminal_raw(int fd, struct cl_terminal_mode *before);
int cl_terminal_restore(int fd, const struct cl_terminal_mode *before);

uint32_t cl_effective_uid(void);
int cl_shutdown(int socket, int both_ways);                 // of sending only, or of both directions
#endif
