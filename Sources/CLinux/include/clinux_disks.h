#ifndef CLINUX_DISKS_H
#define CLINUX_DISKS_H
#include "clinux_io.h"
#include <stdint.h>

// What a descriptor shows, O_PATH ones included. `major_part` and `minor_part` tell one from another: the device of a block
// device, the file system and the inode of anything else.
struct cl_file_identity { int kind; uint64_t major_part, minor_part; };
int cl_file_identity(int fd, struct cl_file_identity *identity);

// What changes with every change of a file's content or attributes: size, and when either changed last (ns since 1970).
struct cl_file_stamp { int64_t size, modified, changed; };
int cl_file_stamp(int fd, struct cl_file_stamp *stamp);

// F_OFD_SETLK over the whole file: for writing, or for reading. -EAGAIN when another lock stands in the way; *holder is then the process
// that holds it, or -1 when that lock belongs to an open file.
int cl_lock_file(int fd, int for_writing, int *holder);
// Whether this very open file holds such a lock: a lock of our own never stands in our way, one of others does. 1 when a lock for writing
// by somebody else would be refused.
int cl_is_locked_by_others(int fd);

// Attaches an open /dev/net/tun to the tap `name` (TUNSETIFF: no packet information, with a virtio header of 12 bytes). Linux,
// drivers/net/tun.c. A tap that is not there would be made: ask first.
int cl_tap_open(int fd, const char *name, int multiqueue);

// What a symbolic link says, without a NUL; how many bytes. -ENAMETOOLONG when there is no room for all.
int64_t cl_read_link(const char *path, char *text, uint64_t room);
// The names in a directory but "." and "..", each with its NUL; how many bytes. -ENAMETOOLONG when there is no room for all.
int64_t cl_list_directory(const char *path, char *names, uint64_t room);

int cl_remove_socket(const char *path);                     // only if it is a socket
// MSG_PEEK without waiting: what is there stays there.
int64_t cl_peek(int socket, void *buffer, uint64_t length);
#endif
