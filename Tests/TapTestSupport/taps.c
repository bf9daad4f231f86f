#define _GNU_SOURCE
#include "taps.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MUST(condition) if (!(condition)) return -errno

static int make(struct test_tap *tap) {
    struct ifreq request = { .ifr_name = "tap0" };
    for (int i = 0; i < 2; i++) {
        int header = 12, queue = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        MUST(queue >= 0);
        request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
        MUST(ioctl(queue, TUNSETIFF, &request) == 0);
        MUST(ioctl(queue, TUNSETVNETHDRSZ, &header) == 0);
        tap->queues[i] = queue;
    }
    int host = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    MUST(host >= 0);
    MUST(ioctl(host, SIOCGIFFLAGS, &request) == 0);
    request.ifr_flags |= IFF_UP;
    MUST(ioctl(host, SIOCSIFFLAGS, &request) == 0);
    MUST(ioctl(host, SIOCGIFINDEX, &request) == 0);
    struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = request.ifr_ifindex };
    MUST(bind(host, (struct sockaddr *)&address, sizeof address) == 0);
    tap->host = host;
    return 0;
}

struct test_tap test_tap_open(void) {
    struct test_tap tap = { { -1, -1 }, -1, -ENOENT };
    int before = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (before < 0) return tap;
    tap.error = unshare(CLONE_NEWNET) ? -errno : make(&tap);
    setns(before, CLONE_NEWNET);
    close(before);
    if (tap.error) for (int i = 0; i < 2; i++) if (tap.queues[i] >= 0) close(tap.queues[i]);
    return tap;
}
