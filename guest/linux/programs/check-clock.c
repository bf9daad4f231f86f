/* Checks clocks and timers, and shows the clocks to the host: check-clock [PAUSE-US]
 *
 * A page of memory, locked, holds the latest readings of all clocks; its physical address is said as `@clock page=ADDRESS`, so that
 * whoever holds the guest's memory compares them with his own at the same moment. A thread on each processor checks that no clock
 * goes back, across processors too. A 10 ms timer is counted. On SIGTERM: one line, and status 1 if a clock went back. */
#include "load.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <x86intrin.h>

/* What the page holds; each field is one aligned word. Tests/Lab/linux/page.py reads it. */
struct page {
    uint64_t magic, sequence; /* odd while the readings are being written */
    uint64_t tsc, monotonic, realtime, raw;
    uint64_t largest_gap, largest_gap_end; /* between two readings, ns, and when by CLOCK_MONOTONIC */
    uint64_t went_back, ticks, ticks_late_ns;
    uint64_t reset; /* the host writes 1: the largest gap and lateness start again */
};
#define MAGIC 0x4B434F4C43544142 /* "BATCLOCK" */
#define TICK_NS 10000000

static volatile struct page *page;
static atomic_ullong latest_monotonic, latest_tsc, readings, went_back;
static unsigned long pause_us = 1000;

static uint64_t physical_address(const volatile void *address)
{
    uint64_t entry = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0 || pread(file, &entry, 8, (uintptr_t)address / 4096 * 8) != 8)
        err(1, "pagemap");
    close(file);
    return (entry & ((1ull << 55) - 1)) * 4096;
}

/* A reading must not be smaller than one that was finished before it began, on whichever processor. */
static void advance(atomic_ullong *latest, uint64_t before, uint64_t now, const char *what)
{
    if (now < before && went_back++ < 10)
        say("@clock back what=%s by=%lu", what, before - now);
    unsigned long long seen = atomic_load(latest);
    while (seen < now && !atomic_compare_exchange_weak(latest, &seen, now)) {}
}

static void *check(void *argument)
{
    (void)argument;
    while (!stopping) {
        for (int i = 0; i < 50; i++) {
            uint64_t before = latest_monotonic;
            advance(&latest_monotonic, before, clock_ns(CLOCK_MONOTONIC), "monotonic");
            before = latest_tsc;
            _mm_lfence();
            uint64_t now = __rdtsc();
            advance(&latest_tsc, before, now, "tsc");
            readings++;
        }
        usleep(pause_us);
    }
    return NULL;
}

/* Counts ticks: as many as time has passed, and how late the latest was read. */
static void *tick(void *argument)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t began = clock_ns(CLOCK_MONOTONIC), expired;
    *(uint64_t *)argument = began;
    struct itimerspec every = {
        .it_interval = { .tv_nsec = TICK_NS },
        .it_value = { .tv_sec = (began + TICK_NS) / 1000000000, .tv_nsec = (began + TICK_NS) % 1000000000 },
    };
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &every, NULL);
    while (!stopping && (read(timer, &expired, 8) == 8 || errno == EINTR)) {
        page->ticks += expired;
        uint64_t due = began + (page->ticks - expired + 1) * TICK_NS, late = clock_ns(CLOCK_MONOTONIC) - due;
        if (late > page->ticks_late_ns)
            page->ticks_late_ns = late;
    }
    return NULL;
}

static void publish(void)
{
    static uint64_t last;
    page->sequence++;
    atomic_thread_fence(memory_order_release);
    page->tsc = __rdtsc();
    uint64_t now = page->monotonic = clock_ns(CLOCK_MONOTONIC);
    page->realtime = clock_ns(CLOCK_REALTIME);
    page->raw = clock_ns(CLOCK_MONOTONIC_RAW);
    page->went_back = went_back;
    if (page->reset) {
        page->reset = page->largest_gap = page->ticks_late_ns = 0;
        last = now;
    }
    if (last && now - last > page->largest_gap) {
        page->largest_gap = now - last;
        page->largest_gap_end = now;
    }
    last = now;
    atomic_thread_fence(memory_order_release);
    page->sequence++;
}

int main(int count, char **arguments)
{
    if (count > 1)
        pause_us = number(arguments[1]);
    stop_on_signal();
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
    if (page == MAP_FAILED)
        err(1, "page");
    page->magic = MAGIC;
    uint64_t where = 0, began = 0;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[processors + 1];
    for (long i = 0; i < processors; i++) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        cpu_set_t processor;
        CPU_ZERO(&processor);
        CPU_SET(i, &processor);
        pthread_attr_setaffinity_np(&attributes, sizeof processor, &processor);
        pthread_create(&threads[i], &attributes, check, NULL);
    }
    pthread_create(&threads[processors], NULL, tick, &began);
    for (unsigned turn = 0; !stopping; turn++) {
        publish();
        if (turn % 1000 == 0 && physical_address(page) != where) {
            where = physical_address(page);
            say("@clock page=%#lx", where);
        }
        usleep(pause_us);
    }
    for (long i = 0; i < processors; i++)
        pthread_join(threads[i], NULL);
    pthread_kill(threads[processors], SIGTERM);
    pthread_join(threads[processors], NULL);
    uint64_t expected = (clock_ns(CLOCK_MONOTONIC) - began) / TICK_NS;
    say("@clock readings=%llu went-back=%llu ticks=%lu expected=%lu", readings, went_back, page->ticks, expected);
    return went_back != 0;
}
