#define _GNU_SOURCE
#include "clinux_confinement.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <linux/vfio.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// Newer than some headers.
#define LANDLOCK_CREATE_RULESET 444
#define LANDLOCK_RESTRICT_SELF 446
#define LANDLOCK_QUERY_VERSION 1u
struct landlock_attributes { uint64_t handled_access_fs, handled_access_net, scoped; };

#define IOMMU_IOAS_IOVA_RANGES 0x3B84
#define IOMMU_IOAS_MAP_FILE 0x3B8F
#define IOMMU_IOAS_CHANGE_PROCESS 0x3B92

#define KVM_IOCTL_TYPE 0xAE
#define X32_BIT 0x40000000u
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(value), (yes), (no))
#define IF_ANY_BIT(bits, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (unsigned)(bits), (yes), (no))
#define ALLOW(name) IF_EQUAL(__NR_##name, 0, 1), RETURN(SECCOMP_RET_ALLOW)
#define REQUEST(number) IF_EQUAL(number, 0, 1), RETURN(SECCOMP_RET_ALLOW)
#define FAIL(name, error) IF_EQUAL(__NR_##name, 0, 1), RETURN(SECCOMP_RET_ERRNO | (error))

// The two halves of argument n. Of an int the kernel takes the low one only.
#define ARGUMENT(n) LOAD(args[n])
#define ARGUMENT_HIGH(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, args[n]) + 4)

int cl_confine_system_calls(void) {
    struct sock_filter filter[] = {
        LOAD(arch), IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1), RETURN(SECCOMP_RET_KILL_PROCESS),

        // ioctl: how large a disk is, what a tap's queue leaves to the guest; what a passed-through device is, its interrupts and RAM for its
        // DMA, but nothing that binds, attaches, detaches or resets one; and KVM's, by the type byte of the request.
        IF_EQUAL(__NR_ioctl, 0, 33), ARGUMENT(1),
        REQUEST(BLKGETSIZE64), REQUEST(BLKSSZGET), REQUEST(TUNSETOFFLOAD), REQUEST(TUNSETQUEUE),
        REQUEST(VFIO_DEVICE_GET_INFO), REQUEST(VFIO_DEVICE_GET_REGION_INFO), REQUEST(VFIO_DEVICE_GET_IRQ_INFO), REQUEST(VFIO_DEVICE_SET_IRQS),
        REQUEST(VFIO_IOMMU_GET_INFO), REQUEST(VFIO_IOMMU_MAP_DMA), REQUEST(VFIO_IOMMU_UNMAP_DMA),
        REQUEST(IOMMU_IOAS_IOVA_RANGES), REQUEST(IOMMU_IOAS_MAP_FILE), REQUEST(IOMMU_IOAS_CHANGE_PROCESS),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xFF00),
        IF_EQUAL(KVM_IOCTL_TYPE << 8, 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),

        // Waiting and moving bytes.
        ALLOW(futex), ALLOW(ppoll), ALLOW(poll), ALLOW(read), ALLOW(write), ALLOW(readv), ALLOW(writev), ALLOW(pread64), ALLOW(pwrite64),
        ALLOW(preadv), ALLOW(pwritev), ALLOW(fdatasync), ALLOW(fallocate), ALLOW(epoll_create1), ALLOW(epoll_ctl), ALLOW(epoll_wait),
        ALLOW(sendmsg), ALLOW(recvmsg), ALLOW(sendto), ALLOW(recvfrom), ALLOW(timerfd_create), ALLOW(timerfd_settime), ALLOW(eventfd2),
        ALLOW(close), ALLOW(lseek), ALLOW(fstat), ALLOW(ftruncate), ALLOW(restart_syscall),

        // Memory: nothing becomes executable.
        IF_EQUAL(__NR_mmap, 1, 0), IF_EQUAL(__NR_mprotect, 0, 4),
        ARGUMENT(2), IF_ANY_BIT(PROT_EXEC, 0, 1), RETURN(SECCOMP_RET_KILL_PROCESS), RETURN(SECCOMP_RET_ALLOW),
        ALLOW(munmap), ALLOW(mremap), ALLOW(madvise), ALLOW(brk),

        // Threads of this process, and nothing but threads.
        IF_EQUAL(__NR_clone, 0, 4), ARGUMENT(0), IF_ANY_BIT(CLONE_THREAD, 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),
        FAIL(clone3, ENOSYS),
        IF_EQUAL(__NR_tgkill, 0, 4), ARGUMENT(0), IF_EQUAL((unsigned)getpid(), 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),
        ALLOW(set_robust_list), ALLOW(rseq), ALLOW(gettid), ALLOW(getpid), ALLOW(getuid), ALLOW(geteuid), ALLOW(getgid), ALLOW(getegid),
        ALLOW(exit), ALLOW(exit_group), ALLOW(sched_yield), ALLOW(sched_setaffinity), ALLOW(sched_getaffinity),
        ALLOW(sched_setscheduler), ALLOW(sched_getscheduler), ALLOW(sched_getparam), ALLOW(sched_setattr), ALLOW(sched_getattr), ALLOW(membarrier),
        IF_EQUAL(__NR_prctl, 0, 4), ARGUMENT(0), IF_EQUAL(PR_SET_NAME, 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),
        IF_EQUAL(__NR_prlimit64, 0, 6), ARGUMENT(2), IF_EQUAL(0, 0, 3), ARGUMENT_HIGH(2), IF_EQUAL(0, 0, 1), // reading only
        RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),

        // Signals to itself, time, chance.
        ALLOW(rt_sigaction), ALLOW(rt_sigprocmask), ALLOW(rt_sigreturn), ALLOW(rt_sigtimedwait), ALLOW(sigaltstack),
        ALLOW(clock_gettime), ALLOW(clock_getres), ALLOW(clock_nanosleep), ALLOW(nanosleep), ALLOW(gettimeofday), ALLOW(getrandom),

        // fcntl: copies, status flags and seals; not who is signalled.
        IF_EQUAL(__NR_fcntl, 0, 10), ARGUMENT(1),
        IF_EQUAL(F_DUPFD_CLOEXEC, 7, 0), IF_EQUAL(F_GETFD, 6, 0), IF_EQUAL(F_SETFD, 5, 0), IF_EQUAL(F_GETFL, 4, 0), IF_EQUAL(F_SETFL, 3, 0),
        IF_EQUAL(F_GET_SEALS, 2, 0), IF_EQUAL(F_ADD_SEALS, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), RETURN(SECCOMP_RET_ALLOW),

        // fstat by its other name: only of a descriptor.
        IF_EQUAL(__NR_newfstatat, 0, 4), ARGUMENT(3), IF_EQUAL(AT_EMPTY_PATH, 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS),

        FAIL(open, EACCES), FAIL(openat, EACCES),
        RETURN(SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
    long r = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r > 0) return -ESRCH;                               // a thread with a filter of its own
    return r < 0 ? -errno : 0;
}

int cl_landlock_version(void) {
    long version = syscall(LANDLOCK_CREATE_RULESET, NULL, 0, LANDLOCK_QUERY_VERSION);
    return version < 0 ? 0 : (int)version;
}

int cl_confine_paths(void) {
    int version = cl_landlock_version();
    if (version == 0) return -EOPNOTSUPP;
    // The rights that exist since versions 1, 2, 3 and 5; TCP since 4; signals and abstract sockets since 6.
    unsigned rights = version >= 5 ? 16 : version >= 3 ? 15 : version == 2 ? 14 : 13;
    struct landlock_attributes attributes = {
        .handled_access_fs = (1u << rights) - 1,
        .handled_access_net = version >= 4 ? 3 : 0,
        .scoped = version >= 6 ? 3 : 0,
    };
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    int ruleset = (int)syscall(LANDLOCK_CREATE_RULESET, &attributes, size, 0);
    if (ruleset < 0) return -errno;
    long r = syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0);
    int error = errno;
    close(ruleset);
    return r < 0 ? -error : version;
}
