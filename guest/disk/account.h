// What the guest with a busy disk keeps for the host, at 0x20000 of its memory. Times are in the guest's TSC.
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include <stdint.h>

enum { ACCOUNT = 0x20000, ACCOUNT_VERSION = 1, BUCKETS = 1024 };
#define ACCOUNT_MAGIC 0x314b444e4f544142ull  // "BATONDK1", little-endian

struct account {
    uint64_t magic;          // 0x00, valid once it is there
    uint32_t version;        // 0x08
    uint32_t depth;          // 0x0c, requests in flight
    uint32_t blocks;         // 0x10, of 4 KiB in a request
    uint32_t reset_request;  // 0x14, written by the host: changed, `longest` and `buckets` begin anew, with the requests submitted from then on
    uint32_t reset_done;     // 0x18
    uint32_t reserved;
    uint64_t tsc_khz;        // 0x20
    uint64_t requests;       // 0x28, completed since boot
    uint64_t compared;       // 0x30, blocks read that the guest had written
    uint64_t longest;        // 0x38, that a request took
    uint64_t damage;         // 0x40, 0 or a code of disk.c; then the guest has stopped
    uint64_t where, expected, found;  // 0x48
    uint32_t buckets[BUCKETS];        // 0x60, requests by how long they took: 16 to an octave, see disk.c
    uint64_t answered[32];            // 0x1060, requests completed in each place
};

#endif
