#ifndef IOMMU_TEST_H
#define IOMMU_TEST_H
#include <stdint.h>

// The kernel's mock IOMMU (CONFIG_IOMMUFD_TEST; drivers/iommu/iommufd/iommufd_test.h). All return 0 or -errno.
int mock_attach(int iommufd, uint32_t ioas, uint32_t *table);           // a mock device, bound and attached
// Whether `length` bytes from `iova` lead to the pages that this process has at `address`: -EINVAL when not.
int mock_check(int iommufd, uint32_t table, uint64_t iova, uint64_t length, const void *address);
// IOMMU_IOAS_MAP: by address, as nothing of ours does.
int map_by_address(int iommufd, uint32_t ioas, void *address, uint64_t length, uint64_t iova);
// Charges each process for what it maps, not each user (IOMMU_OPTION_RLIMIT_MODE). Of an iommufd without any object.
int account_by_process(int iommufd);

// A process that does as it is told, as a worker would; it has every descriptor that was open when it started.
struct test_peer { int pid, socket; };
#define PEER_SAME_USER UINT32_MAX                                       // stays root, with all its rights
int peer_start(struct test_peer *peer, uint32_t user, uint64_t memory_lock);
void peer_end(struct test_peer *peer);                                       // SIGKILL; its end is seen

#define PEER_MAP_FILE 1                                                 // `count` mappings of `length`, one after the other, by file
#define PEER_CHANGE_PROCESS 2
#define PEER_CHECK 3                                                    // mock_check with a mapping of its own; `table`
#define PEER_MAP_MEMORY 4                                               // as PEER_MAP_FILE, into a container
#define PEER_BRING 5                                                    // voids all addresses, if `first`, and brings its own
#define PEER_MAP_BY_ADDRESS 6                                           // one mapping, into an iommufd
struct peer_order { int what, target, file; uint32_t object; uint64_t start, length, iova, count; int first; };
struct peer_answer { int64_t result; int64_t nanoseconds; };            // `result`: 0 or -errno; -EPIPE: the peer is gone
struct peer_answer peer_ask(const struct test_peer *peer, const struct peer_order *order);
int set_memory_lock(int pid, uint64_t bytes);
#endif
