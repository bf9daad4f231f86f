/* Prints the frequency of this machine's time stamp counter in kHz, measured against CLOCK_MONOTONIC within 100 ms.
 *
 * The lab's counter is this machine's. Told so, the lab kernel need not measure it against an emulated timer, which on a
 * busy machine comes out wrong by any factor. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct reading { uint64_t nanoseconds, ticks; };

/* Both clocks at one instant: of many tries, the one that was disturbed least. */
static struct reading read_clocks(void)
{
    struct reading best = { 0, 0 };
    uint64_t narrowest = UINT64_MAX;
    for (int attempt = 0; attempt < 100; attempt++) {
        struct timespec now;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t after = __rdtsc();
        if (after - before < narrowest) {
            narrowest = after - before;
            best.nanoseconds = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
            best.ticks = before + narrowest / 2;
        }
    }
    return best;
}

int main(void)
{
    struct reading first = read_clocks();
    nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    struct reading last = read_clocks();
    double milliseconds = (double)(last.nanoseconds - first.nanoseconds) / 1e6;
    printf("%.0f\n", (double)(last.ticks - first.ticks) / milliseconds);
    return 0;
}
