#define _GNU_SOURCE
#include "iommu_test.h"
#include "CLinux.h"
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// As Linux 7.2 has them.
#define IOMMU_IOAS_MAP 0x3B85ul
#define IOMMU_TEST_CMD 0x3BA0ul
enum { MOCK_DOMAIN = 2, MD_CHECK_MAP = 3 };
struct test_command {
    uint32_t size, op, id, reserved;
    union {
        struct { uint32_t out_stdev_id, out_hwpt_id, out_idev_id; } mock_domain;
        struct { uint64_t iova, length, uptr; } check_map;
        uint8_t room[48];
    };
    uint32_t last, padding;
};
_Static_assert(sizeof(struct test_command) == 72, "the kernel's size");

static int call(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument) < 0 ? -errno : 0; }

int mock_attach(int iommufd, uint32_t ioas, uint32_t *table) {
    struct test_command command = { .size = sizeof command, .op = MOCK_DOMAIN, .id = ioas };
    int r = call(iommufd, IOMMU_TEST_CMD, &command);
    *table = command.mock_domain.out_hwpt_id;
    return r;
}

int mock_check(int iommufd, uint32_t table, uint64_t iova, uint64_t length, const void *address) {
    struct test_command command = { .size = sizeof command, .op = MD_CHECK_MAP, .id = table };
    command.check_map.iova = iova;
    command.check_map.length = length;
    command.check_map.uptr = (uintptr_t)address;
    return call(iommufd, IOMMU_TEST_CMD, &command);
}

int map_by_address(int iommufd, uint32_t ioas, void *address, uint64_t length, uint64_t iova) {
    struct { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; } map = {
        .size = 40, .flags = 7, .ioas_id = ioas, .user_va = (uintptr_t)address, .length = length, .iova = iova,
    };
    return call(iommufd, IOMMU_IOAS_MAP, &map);
}

int account_by_process(int iommufd) { return cl_iommu_set_option(iommufd, 0, 0, 1); }

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static char *view(const struct peer_order *order) {
    void *p = mmap(NULL, order->length * order->count, PROT_READ | PROT_WRITE, MAP_SHARED, order->file, (off_t)order->start);
    return p == MAP_FAILED ? NULL : p;
}

static int carry_out(const struct peer_order *order, int64_t *began) {
    uint64_t unmapped;
    char *memory = NULL;
    if (order->what == PEER_CHECK || order->what == PEER_MAP_MEMORY || order->what == PEER_BRING || order->what == PEER_MAP_BY_ADDRESS)
        if (!(memory = view(order))) return -errno;
    *began = now();
    int r = 0;
    switch (order->what) {
    case PEER_MAP_FILE:
        for (uint64_t i = 0; i < order->count && !r; i++)
            r = cl_iommu_map_file(order->target, order->object, CL_IOMMU_MAP_READABLE | CL_IOMMU_MAP_WRITEABLE, order->file,
                                  order->start + i * order->length, order->length, order->iova + i * order->length);
        return r;
    case PEER_CHANGE_PROCESS: return cl_iommu_change_process(order->target);
    case PEER_CHECK:
        r = mock_check(order->target, order->object, order->iova, order->length * order->count, memory);
        munmap(memory, order->length * order->count);
        return r;
    case PEER_MAP_MEMORY:
        for (uint64_t i = 0; i < order->count && !r; i++)
            r = cl_vfio_map(order->target, CL_VFIO_DMA_READ | CL_VFIO_DMA_WRITE, (uintptr_t)memory + i * order->length,
                            order->iova + i * order->length, order->length);
        return r;
    case PEER_BRING:
        if (order->first && (r = cl_vfio_unmap(order->target, CL_VFIO_UNMAP_ALL | CL_VFIO_UNMAP_VADDR, 0, 0, &unmapped))) return r;
        for (uint64_t i = 0; i < order->count && !r; i++)
            r = cl_vfio_map(order->target, CL_VFIO_DMA_VADDR, (uintptr_t)memory + i * order->length, order->iova + i * order->length,
                            order->length);
        return r;
    case PEER_MAP_BY_ADDRESS: return map_by_address(order->target, order->object, memory, order->length, order->iova);
    default: return -ENOSYS;
    }
}

int set_memory_lock(int pid, uint64_t bytes) {
    struct rlimit limit = { bytes, bytes };
    return prlimit(pid, RLIMIT_MEMLOCK, &limit, NULL) ? -errno : 0;
}

int peer_start(struct test_peer *peer, uint32_t user, uint64_t memory_lock) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) return -errno;
    int pid = fork();
    if (pid < 0) return -errno;
    if (pid == 0) {
        close(ends[0]);
        if (set_memory_lock(0, memory_lock)) _exit(1);
        if (user != PEER_SAME_USER && (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user))) _exit(2);
        struct peer_order order;
        while (recv(ends[1], &order, sizeof order, 0) == sizeof order) {
            int64_t began = now();
            struct peer_answer answer = { .result = carry_out(&order, &began) };
            answer.nanoseconds = now() - began;
            if (send(ends[1], &answer, sizeof answer, MSG_NOSIGNAL) < 0) break;
        }
        _exit(0);
    }
    close(ends[1]);
    *peer = (struct test_peer){ pid, ends[0] };
    return 0;
}

void peer_end(struct test_peer *peer) {
    if (peer->pid <= 0) return;
    kill(peer->pid, SIGKILL);
    waitpid(peer->pid, NULL, 0);
    close(peer->socket);
    peer->pid = 0;
}

struct peer_answer peer_ask(const struct test_peer *peer, const struct peer_order *order) {
    struct peer_answer answer = { -EPIPE, 0 };
    if (send(peer->socket, order, sizeof *order, MSG_NOSIGNAL) == sizeof *order) recv(peer->socket, &answer, sizeof answer, 0);
    return answer;
}
