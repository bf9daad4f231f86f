#define _GNU_SOURCE
#include "clinux_threads.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

int cl_thread_start(void *(*body)(void *), void *argument, size_t stack, unsigned long *thread) {
    pthread_t handle;
    pthread_attr_t attributes;
    int r = pthread_attr_init(&attributes);
    if (r) return -r;
    if (stack) r = pthread_attr_setstacksize(&attributes, stack);
    if (!r) r = pthread_create(&handle, &attributes, body, argument);
    pthread_attr_destroy(&attributes);
    if (r) return -r;
    *thread = (unsigned long)handle;
    return 0;
}

int cl_thread_join(unsigned long thread) { return -pthread_join((pthread_t)thread, NULL); }
int cl_thread_detach(unsigned long thread) { return -pthread_detach((pthread_t)thread); }
unsigned long cl_thread_self(void) { return (unsigned long)pthread_self(); }
int cl_thread_id(void) { return (int)syscall(SYS_gettid); }
int cl_thread_name(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0) ? -errno : 0; }

int cl_thread_affinity(int thread, const uint64_t *mask, size_t words) {
    return syscall(SYS_sched_setaffinity, thread, words * sizeof *mask, mask) < 0 ? -errno : 0;
}

int cl_thread_affinity_now(uint64_t *mask, size_t words) {
    long bytes = syscall(SYS_sched_getaffinity, 0, words * sizeof *mask, mask);
    return bytes < 0 ? -errno : (int)(bytes / (long)sizeof *mask);
}

int cl_current_cpu(void) {
    int cpu = sched_getcpu();
    return cpu < 0 ? -errno : cpu;
}

int cl_thread_policy(int policy) {
    struct sched_param p = { .sched_priority = 0 };
    return sched_setscheduler(0, policy, &p) ? -errno : 0;
}

int cl_thread_slice(int thread, uint64_t ns) {
    // The first version of struct sched_attr, by hand: glibc has it since 2.41 only.
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } attributes = { .size = 48 };
    if (syscall(SYS_sched_getattr, thread, &attributes, 48u, 0u) < 0) return -errno;
    if (attributes.policy != SCHED_OTHER) return 0;
    attributes.runtime = ns;
    return syscall(SYS_sched_setattr, thread, &attributes, 0u) < 0 ? -errno : 0;
}

void cl_stack_return(void) {
    static __thread uintptr_t low;
    if (!low) {
        pthread_attr_t attributes;
        void *start;
        size_t size;
        if (pthread_getattr_np(pthread_self(), &attributes)) return;
        int r = pthread_attr_getstack(&attributes, &start, &size);
        pthread_attr_destroy(&attributes);
        if (r) return;
        low = (uintptr_t)start;
    }
    // A page below this frame stays: the callee of madvise(2) and the red zone are in it.
    uintptr_t end = ((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)4095) - 4096;
    if (end > low) madvise((void *)low, end - low, MADV_DONTNEED);
}

static void nothing(int signal) { (void)signal; }

int cl_kick_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);                      // no SA_RESTART: the call is meant to return
    action.sa_handler = nothing;
    return sigaction(CL_KICK_SIGNAL, &action, NULL) ? -errno : 0;
}

int cl_kick_allow(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, CL_KICK_SIGNAL);
    return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int cl_kick(unsigned long thread) { return -pthread_kill((pthread_t)thread, CL_KICK_SIGNAL); }

int cl_ignore_signal(int signal_number) { return signal(signal_number, SIG_IGN) == SIG_ERR ? -errno : 0; }

int cl_signalfd(const int *signals, unsigned count) {
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < count; i++) sigaddset(&set, signals[i]);
    int r = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (r) return -r;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int cl_signalfd_take(int fd) {
    struct signalfd_siginfo info;
    ssize_t n = read(fd, &info, sizeof info);
    if (n < 0) return -errno;
    return n == sizeof info ? (int)info.ssi_signo : -EIO;
}

int64_t cl_now(int clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int cl_processor_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? -errno : CPU_COUNT(&set);
}

uint64_t cl_tsc(void) { return __rdtsc(); }

void cl_relax(void) { _mm_pause(); }

void cl_sleep(int64_t ns) {
    struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
    while (nanosleep(&t, &t) && errno == EINTR) { }
}
