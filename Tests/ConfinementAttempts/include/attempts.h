#ifndef ATTEMPTS_H
#define ATTEMPTS_H

// What a process tries after it was confined. Each runs in a child made by fork, in C: the test's process has threads of the Swift
// runtime, which a worker has not and the filter would end.
enum attempt {
    ATTEMPT_SOCKET, ATTEMPT_SOCKETPAIR, ATTEMPT_CONNECT, ATTEMPT_OPENAT2, ATTEMPT_OPEN, ATTEMPT_EXECVE, ATTEMPT_EXECVEAT, ATTEMPT_FORK,
    ATTEMPT_PTRACE, ATTEMPT_PIDFD_OPEN, ATTEMPT_KILL, ATTEMPT_TGKILL_OTHER, ATTEMPT_EXECUTABLE_MAPPING, ATTEMPT_EXECUTABLE_PROTECTION,
    ATTEMPT_OTHER_IOCTL, ATTEMPT_TAP_IOCTL, ATTEMPT_DEVICE_RESET, ATTEMPT_DEVICE_DETACH, ATTEMPT_SET_OWNER, ATTEMPT_SET_LIMIT, ATTEMPT_MEMFD, ATTEMPT_STAT_PATH, ATTEMPT_OTHER_THREAD,
    ATTEMPT_EVERYDAY, // all a worker does; exits with 0, or with the line that failed
};

// Exit status of the child, or minus the signal that killed it. -1000: it could not be confined.
int attempt(enum attempt what);
// What path access gives under Landlock alone: the errno of open, 0 if it worked. -1000: no Landlock here.
int open_under_landlock(void);
#endif
