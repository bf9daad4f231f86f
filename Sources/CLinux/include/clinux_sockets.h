#ifndef CLINUX_SOCKETS_H
#define CLINUX_SOCKETS_H
#include <stddef.h>
#include <stdint.h>

#define CL_MAXIMUM_DESCRIPTORS 253                          // SCM_MAX_FD: the kernel's limit for one message

int cl_seqpacket_pair(int ends[2]);
int cl_stream_pair(int ends[2], int buffer);                // send buffers of `buffer` bytes, 0 keeps the default
int cl_listen(const char *path, unsigned mode);             // stream, non-blocking; replaces a stale socket file
int cl_connect(const char *path);                           // stream, blocking
int cl_accept(int listener);                                // non-blocking connection
struct cl_peer { int pid; uint32_t uid, gid; };
int cl_peer(int socket, struct cl_peer *peer);

// One message with its descriptors. Partial sends of a SEQPACKET do not exist; the result is the length sent.
int64_t cl_send(int socket, const void *bytes, size_t length, const int *descriptors, unsigned count, int dont_wait);
// Receives one message. *count holds the room on entry, the number received on return. -EPROTO when the message or its
// descriptors did not arrive whole (MSG_TRUNC, MSG_CTRUNC): what did arrive is closed. 0: the peer is gone.
int64_t cl_receive(int socket, void *buffer, size_t room, int *descriptors, unsigned *count, int dont_wait);
#endif
