/* Which processors a tool may run on, and how it stays on one. */
#include <err.h>
#include <sched.h>

static inline void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        err(1, "sched_setaffinity");
}

/* The first and the last that are allowed. */
static inline void outermost(int *first, int *last)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        err(1, "sched_getaffinity");
    for (*first = 0; !CPU_ISSET(*first, &allowed);)
        ++*first;
    for (*last = CPU_SETSIZE - 1; !CPU_ISSET(*last, &allowed);)
        --*last;
}
