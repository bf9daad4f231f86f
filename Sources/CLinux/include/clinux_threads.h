#ifndef CLINUX_THREADS_H
#define CLINUX_THREADS_H
#include <stddef.h>
#include <stdint.h>

int cl_thread_start(void *(*body)(void *), void *argument, size_t stack, unsigned long *thread); // stack in bytes; 0: the usual one
int cl_thread_join(unsigned long thread);
int cl_thread_detach(unsigned long thread);
unsigned long cl_thread_self(void);
int cl_thread_id(void);                                     // gettid
int cl_thread_name(const char *name);                       // this thread; 15 bytes at most, longer is cut
int cl_thread_affinity(int thread, const uint64_t *mask, size_t words); // 0: this thread
int cl_thread_affinity_now(uint64_t *mask, size_t words);   // this thread; how many words were filled
int cl_current_cpu(void);
int cl_thread_policy(int policy);                           // this thread: SCHED_OTHER 0, SCHED_BATCH 3, SCHED_IDLE 5
// How long a thread of SCHED_OTHER runs at a stretch where others wait (sched_setattr(2), sched_runtime, Linux 6.12): one whose stretch is shorter
// than the running one's gets the CPU when it wakes. 0.1 to 100 ms, 0 for the default; `thread` 0 is this one. Nothing changes for other policies.
int cl_thread_slice(int thread, uint64_t ns);
void cl_stack_return(void);                                // madvise(2) on what this thread's stack has used and does not use

// A kick: a real-time signal whose handler does nothing, sent so that a blocking KVM_RUN returns EINTR.
#define CL_KICK_SIGNAL 34                                   // SIGRTMIN as glibc sees it
int cl_kick_install(void);
int cl_kick_allow(void);                                    // unblocks it in this thread
int cl_kick(unsigned long thread);

int cl_ignore_signal(int signal);
int cl_signalfd(const int *signals, unsigned count);        // blocks them in this thread first
int cl_signalfd_take(int fd);                               // the signal's number, -EAGAIN when none waits

#define CL_CLOCK_REALTIME 0
#define CL_CLOCK_MONOTONIC 1
#define CL_CLOCK_MONOTONIC_RAW 4
int64_t cl_now(int clock);                                  // nanoseconds
void cl_relax(void);                                        // PAUSE
uint64_t cl_tsc(void);
int cl_processor_count(void);                               // CPUs this process may run on
void cl_sleep(int64_t ns);
#endif
