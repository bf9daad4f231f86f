#define _GNU_SOURCE
#include "attempts.h"
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/openat2.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNCONFINED = 250 };

static int confine(void) {
    cl_set_no_new_privileges();
    int landlock = cl_confine_paths();
    if (landlock < 0 && landlock != -EOPNOTSUPP) return landlock;
    return cl_confine_system_calls();
}

static void *wait_and_ask(void *go) {
    while (cl_load32(go) == 0) cl_futex_wait(go, 0, -1);
    socket(AF_UNIX, SOCK_STREAM, 0);
    return NULL;
}

static void *everyday_thread(void *argument) {
    uint64_t cpu = 1;
    cl_thread_name("everyday");
    cl_thread_policy(5);
    cl_thread_affinity(0, &cpu, 1);
    free(malloc(40 << 20));
    free(malloc(100));
    return argument;
}

#define MUST(condition) if (!(condition)) return __LINE__

static int everyday(int ram, int ends[2]) {
    void *map = NULL;
    MUST(cl_map_aligned(ram, 1 << 20, 2 << 20, &map) == 0);
    MUST(cl_advise(map, 1 << 20, CL_MADV_POPULATE_READ) == 0);
    memset(map, 1, 1 << 20);
    unsigned long threads[8];
    for (int i = 0; i < 8; i++) MUST(cl_thread_start(everyday_thread, NULL, 0, &threads[i]) == 0);
    for (int i = 0; i < 8; i++) MUST(cl_thread_join(threads[i]) == 0);
    MUST(cl_kick_install() == 0 && cl_kick(cl_thread_self()) == 0);
    int event = cl_eventfd(0, 0), timer = cl_timerfd(CL_CLOCK_MONOTONIC);
    MUST(event >= 0 && timer >= 0 && cl_timerfd_set(timer, cl_now(CL_CLOCK_MONOTONIC) + 1000000, 0, 1) == 0);
    struct cl_poll entry = { .fd = timer, .events = CL_POLLIN };
    MUST(cl_poll(&entry, 1, 5000000000) == 1);
    int passed[1] = { event }, received[CL_MAXIMUM_DESCRIPTORS];
    unsigned count = CL_MAXIMUM_DESCRIPTORS;
    char byte = 7;
    MUST(cl_send(ends[0], &byte, 1, passed, 1, 0) == 1);
    MUST(cl_receive(ends[1], &byte, 1, received, &count, 0) == 1 && count == 1);
    int copy = cl_duplicate(ram);
    MUST(copy >= 0 && cl_size(copy) == 1 << 20 && cl_get_seals(copy) >= 0 && cl_set_nonblocking(ends[0], 1) == 0);
    MUST(cl_seek(ram, 0, 3) >= 0);
    struct cl_vector halves[2] = { { (uint64_t)(uintptr_t)map, 512 }, { (uint64_t)(uintptr_t)map + 4096, 512 } };
    MUST(cl_transfer(ram, 1, halves, 2, 8192) == 1024 && cl_transfer(ram, 0, halves, 2, 8192) == 1024);
    MUST(cl_transfer(event, 1, halves, 0, -1) <= 0 && cl_data_sync(ram) == 0 && cl_punch_hole(ram, 0, 4096) == 0);
    MUST(cl_capacity(ram) == 1 << 20 && cl_block_size(ram) == 512 && cl_zero_range(ram, 0, 4096) == -EOPNOTSUPP);
    MUST(ioctl(ram, BLKSSZGET, &count) < 0 && ioctl(ram, BLKGETSIZE64, &ends) < 0);
    MUST(cl_tap_set_offloads(ram, 0) == -ENOTTY && cl_tap_attach(ram, 1) == -ENOTTY);
    MUST(ioctl(ram, VFIO_DEVICE_SET_IRQS, NULL) < 0 && ioctl(ram, VFIO_IOMMU_UNMAP_DMA, NULL) < 0 && cl_iommu_change_process(ram) < 0);
    int doorbells = cl_epoll();
    MUST(doorbells >= 0 && cl_epoll_add(doorbells, event, 1) == 0 && cl_write(event, &(uint64_t){ 1 }, 8) == 8 && cl_epoll_wait(doorbells) == 1);
    MUST(cl_write(2, "", 0) == 0);
    cl_sleep(1000);
    MUST(cl_close(copy) == 0 && cl_unmap(map, 1 << 20) == 0);
    return 0;
}

static int child(enum attempt what) {
    int ends[2], ram = cl_memfd("ram", 0), image = open("/bin/true", O_RDONLY), parent = getppid();
    cl_truncate(ram, 1 << 20);
    cl_seqpacket_pair(ends);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static uint32_t go;
    unsigned long thread;
    if (what == ATTEMPT_OTHER_THREAD) cl_thread_start(wait_and_ask, &go, 0, &thread);
    if (confine() != 0) return UNCONFINED;
    char *none[] = { NULL };
    struct open_how how = { .flags = O_RDONLY };
    struct rlimit limit = { 0, 0 };
    struct winsize size;
    struct stat status;
    switch (what) {
    case ATTEMPT_SOCKET: socket(AF_INET, SOCK_STREAM, 0); break;
    case ATTEMPT_SOCKETPAIR: socketpair(AF_UNIX, SOCK_STREAM, 0, ends); break;
    case ATTEMPT_CONNECT: connect(ends[0], NULL, 0); break;
    case ATTEMPT_OPENAT2: syscall(SYS_openat2, AT_FDCWD, "/etc/hostname", &how, sizeof how); break;
    case ATTEMPT_OPEN: return open("/etc/hostname", O_RDONLY) >= 0 ? 0 : errno;
    case ATTEMPT_EXECVE: execve("/bin/true", none, none); break;
    case ATTEMPT_EXECVEAT: syscall(SYS_execveat, image, "", none, none, AT_EMPTY_PATH); break;
    case ATTEMPT_FORK: fork(); break;
    case ATTEMPT_PTRACE: ptrace(PTRACE_TRACEME, 0, NULL, NULL); break;
    case ATTEMPT_PIDFD_OPEN: cl_pidfd_open(parent); break;
    case ATTEMPT_KILL: kill(parent, 0); break;
    case ATTEMPT_TGKILL_OTHER: syscall(SYS_tgkill, parent, parent, 0); break;
    case ATTEMPT_EXECUTABLE_MAPPING: mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); break;
    case ATTEMPT_EXECUTABLE_PROTECTION: mprotect(page, 4096, PROT_READ | PROT_EXEC); break;
    case ATTEMPT_OTHER_IOCTL: ioctl(0, TIOCGWINSZ, &size); break;
    case ATTEMPT_TAP_IOCTL: ioctl(0, TUNSETIFF, &limit); break;
    case ATTEMPT_DEVICE_RESET: ioctl(ram, VFIO_DEVICE_RESET); break;
    case ATTEMPT_DEVICE_DETACH: cl_vfio_detach(ram); break;
    case ATTEMPT_SET_OWNER: fcntl(ends[0], F_SETOWN, parent); break;
    case ATTEMPT_SET_LIMIT: setrlimit(RLIMIT_CORE, &limit); break;
    case ATTEMPT_MEMFD: cl_memfd("more", 0); break;
    case ATTEMPT_STAT_PATH: stat("/etc/hostname", &status); break;
    case ATTEMPT_OTHER_THREAD:
        cl_store32(&go, 1);
        cl_futex_wake(&go, 1);
        cl_thread_join(thread);
        break;
    case ATTEMPT_EVERYDAY: return everyday(ram, ends);
    }
    return 0;
}

static int result(pid_t pid) {
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1000;
    if (WIFSIGNALED(status)) return -WTERMSIG(status);
    return WEXITSTATUS(status) == UNCONFINED ? -1000 : WEXITSTATUS(status);
}

int attempt(enum attempt what) {
    pid_t pid = fork();
    if (pid == 0) _exit(child(what));
    return result(pid);
}

int open_under_landlock(void) {
    pid_t pid = fork();
    if (pid == 0) {
        cl_set_no_new_privileges();
        if (cl_confine_paths() < 0) _exit(UNCONFINED);
        _exit(open("/etc/hostname", O_RDONLY) >= 0 ? 0 : errno);
    }
    return result(pid);
}
