#ifndef TAPS_H
#define TAPS_H

// A tap in a network namespace of its own, which ends with the last of these descriptors.
struct test_tap {
    int queues[2];                                          // as workers get them: not blocking, headers of 12 bytes
    int host;                                               // a packet socket: frames without header, both ways
    int error;                                              // 0, or -errno and no descriptors: taps cannot be made here
};

struct test_tap test_tap_open(void);
#endif
