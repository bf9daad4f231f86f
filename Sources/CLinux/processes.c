#define _GNU_SOURCE
#include "clinux_processes.h"
#include "clinux_threads.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// A process group of its own, no controlling terminal, and no SIGHUP when its group is orphaned while it is stopped.
static void leave_terminal(void) {
    syscall(SYS_setpgid, 0, 0);
    long terminal = syscall(SYS_openat, AT_FDCWD, "/dev/tty", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
    if (terminal >= 0) {
        syscall(SYS_ioctl, terminal, TIOCNOTTY, 0);
        syscall(SYS_close, terminal);
    }
    struct { unsigned long handler, flags, restorer, mask; } ignored = { (unsigned long)SIG_IGN, 0, 0, 0 };
    syscall(SYS_rt_sigaction, SIGHUP, &ignored, NULL, 8);
}

// Where what children are given is put for them: low numbers, if it is set up early, so that a child copies a few descriptors and not the thousands that its
// parent may have.
static struct {
    pthread_mutex_t lock;
    int numbers[CL_SPAWN_LIMIT + 1], count;
    int refused;                    // a child could not leave our descriptors by itself: a sandbox that knows no close_range
} window = { .lock = PTHREAD_MUTEX_INITIALIZER };

// Above those that a child's descriptors end up at.
static int open_window(int any) {
    for (; window.count <= CL_SPAWN_LIMIT; window.count++) {
        int number = fcntl(any, F_DUPFD_CLOEXEC, CL_SPAWN_LIMIT + 1);
        if (number < 0) return errno;
        window.numbers[window.count] = number;
    }
    return 0;
}

// What a child was given is not ours any more, or its other ends would never see an end.
static void clear_window(int nothing) {
    for (int i = 0; i < window.count; i++) dup3(nothing, window.numbers[i], O_CLOEXEC);
}

int cl_prepare_to_spawn(void) {
    int nothing = eventfd(0, EFD_CLOEXEC);
    if (nothing < 0) return -errno;
    pthread_mutex_lock(&window.lock);
    int error = open_window(nothing);
    pthread_mutex_unlock(&window.lock);
    close(nothing);
    return -error;
}

// Runs in the child, between clone and execveat, in the parent's memory and first with its descriptors: raw system calls only, since glibc's wrappers act for
// all of the parent's threads, and nothing is written but this stack and one flag.
static void become(const struct cl_spawn *r) {
    int n = r->descriptor_count, last = 0;
    for (int i = 0; i <= CL_SPAWN_LIMIT; i++) if (window.numbers[i] > last) last = window.numbers[i];
    if (!window.refused && syscall(SYS_close_range, (unsigned)(last + 1), ~0u, CLOSE_RANGE_UNSHARE) < 0) {
        window.refused = 1;
        return;
    }
    for (int i = 0; i < n; i++) {
        if (syscall(SYS_dup3, window.numbers[i], i, 0) < 0) return;
    }
    if (syscall(SYS_dup3, window.numbers[n], n, O_CLOEXEC) < 0) return;
    syscall(SYS_close_range, (unsigned)(n + 1), ~0u, 0u);   // where it is refused: everything of ours is O_CLOEXEC

    cl_thread_slice(0, 0);                                  // not that of the thread that starts it
    if (r->own_group) leave_terminal();
    if (r->memlock >= 0) {
        struct rlimit limit = { (rlim_t)r->memlock, (rlim_t)r->memlock };
        if (syscall(SYS_setrlimit, RLIMIT_MEMLOCK, &limit) < 0) return;
    }
    if (r->gid != CL_KEEP_ID) {
        if (syscall(SYS_setgroups, 0, NULL) < 0) return;
        if (syscall(SYS_setresgid, r->gid, r->gid, r->gid) < 0) return;
    }
    if (r->uid != CL_KEEP_ID && syscall(SYS_setresuid, r->uid, r->uid, r->uid) < 0) return;
    if (!r->keep_capabilities) {
        syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
        struct { uint32_t effective, permitted, inheritable; } none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
        if (syscall(SYS_capset, &header, none) < 0) return;
    }
    if (r->no_new_privileges && syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return;
    unsigned long nothing = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &nothing, NULL, 8);
    syscall(SYS_execveat, n, "", r->arguments, r->environment, AT_EMPTY_PATH);
}

static int child(void *request) {
    become(request);
    syscall(SYS_exit_group, 127);
    return 127;
}

// The child borrows our memory until it executes (clone(2), CLONE_VFORK). A copy would cost as much as we have memory, and all our threads page faults
// afterwards. Handlers are the parent's until then, but every signal is blocked, and ours do nothing. Our descriptors it borrows as well, until it has copied
// those it needs.
static int start(const struct cl_spawn *request, int *handle) {
    _Alignas(16) char stack[16384];
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (window.refused ? 0 : CLONE_FILES);
    return clone(child, stack + sizeof stack, flags, (void *)(uintptr_t)request, handle);
}

int64_t cl_spawn(const struct cl_spawn *request, int *pidfd) {
    int n = request->descriptor_count;
    if (n < 0 || n > CL_SPAWN_LIMIT) return -EINVAL;
    static int usual = -1;
    if (usual < 0) usual = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    int nothing = eventfd(0, EFD_CLOEXEC);
    if (nothing < 0) return -errno;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&window.lock);
    int handle = -1, pid = -1, error = open_window(nothing);
    for (int i = 0; i <= n && !error; i++) {
        if (dup3(i < n ? request->descriptors[i] : request->executable, window.numbers[i], O_CLOEXEC) < 0) error = errno;
    }
    if (!error) {
        int before_it = window.refused;
        if ((pid = start(request, &handle)) >= 0 && window.refused != before_it) {
            struct cl_exit ended;
            cl_wait_pidfd(handle, 1, &ended);
            close(handle);
            pid = start(request, &handle);
        }
        if (pid < 0) error = errno;
    }
    clear_window(nothing);
    pthread_mutex_unlock(&window.lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(nothing);
    // A change of users in the child marks the memory, which is ours.
    if (request->uid != CL_KEEP_ID && usual == 1) prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (pid < 0) return -error;
    *pidfd = handle;
    return pid;
}

int cl_pidfd_open(int pid) {
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

int cl_pidfd_signal(int pidfd, int signal) { return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) ? -errno : 0; }

static int wait_for(idtype_t type, id_t id, int options, struct cl_exit *out) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    int r;
    do r = waitid(type, id, &info, WEXITED | options); while (r && errno == EINTR);
    if (r) return -errno;
    if (info.si_pid == 0) return 0;
    *out = (struct cl_exit){ .pid = info.si_pid, .code = info.si_code, .status = info.si_status };
    return 1;
}

int cl_wait_pidfd(int pidfd, int block, struct cl_exit *out) { return wait_for(P_PIDFD, (id_t)pidfd, block ? 0 : WNOHANG, out); }

int cl_reap_any(int except, struct cl_exit *out) {
    int r = wait_for(P_ALL, 0, WNOHANG | WNOWAIT, out);     // look first: `except` is left for whoever waits for it
    if (r != 1) return r;
    return out->pid == except ? 0 : wait_for(P_PID, (id_t)out->pid, WNOHANG, out);
}

int cl_set_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ? -errno : 0; }
int cl_set_no_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0; }

int cl_set_limit_nofile(uint64_t count) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return -errno;
    if (limit.rlim_max < count) {
        struct rlimit raised = { (rlim_t)count, (rlim_t)count };
        if (!setrlimit(RLIMIT_NOFILE, &raised)) return 0;
        count = limit.rlim_max;                             // without the privilege: as far as it goes
    }
    if (limit.rlim_cur >= count) return 0;
    limit.rlim_cur = count;
    return setrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0;
}

static uint64_t soft_limit(int resource) {
    struct rlimit limit;
    return getrlimit((__rlimit_resource_t)resource, &limit) ? 0 : limit.rlim_cur;
}
uint64_t cl_limit_nofile(void) { return soft_limit(RLIMIT_NOFILE); }
uint64_t cl_limit_memlock(void) { return soft_limit(RLIMIT_MEMLOCK); }
const char *cl_environment(const char *name) { return getenv(name); }

// By default the first large block that is freed raises both limits to its size, and every arena may then keep as much.
void cl_return_large_blocks(void) {
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

void cl_keep_freed_memory(size_t length) {
    mallopt(M_MMAP_THRESHOLD, (int)length);
    mallopt(M_TRIM_THRESHOLD, (int)length);
}

void cl_exit_now(int status) { _exit(status); }
uint32_t cl_user_id(void) { return geteuid(); }
int cl_process_id(void) { return getpid(); }
