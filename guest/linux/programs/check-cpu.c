/* Checks processors and memory: check-cpu THREADS MIB [PAUSE-US]
 *
 * Each thread, on a processor of its own, works on MIB of memory: it fills it with a pattern, checks and changes it word by word, and in
 * between keeps known values in all vector registers and general registers while it counts, and looks whether they are still there.
 * PAUSE-US: sleep that long after each pass; 0 is a hot loop. On SIGTERM: one line with all passes and all errors, and status 1 if any. */
#include "load.h"
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

static size_t words;
static unsigned long pause_us;
static atomic_ullong passes, memory_errors, register_errors;

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define NAME(n) , "xmm" #n
#define CLOBBERED "memory", "xmm0" EACH_BUT_FIRST
#define EACH_BUT_FIRST NAME(1) NAME(2) NAME(3) NAME(4) NAME(5) NAME(6) NAME(7) NAME(8) NAME(9) NAME(10) NAME(11) NAME(12) NAME(13) NAME(14) NAME(15)

/* Holds sixteen vectors and eight words in registers for `turns` loops; what is in them afterwards is put back to memory. */
__attribute__((target("avx"), noinline)) static void hold_avx(uint8_t (*vectors)[32], uint64_t *general, uint64_t turns)
{
#define LOAD(n) "vmovdqu 32*" #n "(%[v]), %%ymm" #n "\n"
#define STORE(n) "vmovdqu %%ymm" #n ", 32*" #n "(%[v])\n"
    asm volatile(EACH(LOAD)
                 "mov 0(%[g]), %%r8\n mov 8(%[g]), %%r9\n mov 16(%[g]), %%r10\n mov 24(%[g]), %%r11\n"
                 "mov 32(%[g]), %%r12\n mov 40(%[g]), %%r13\n mov 48(%[g]), %%r14\n mov 56(%[g]), %%r15\n"
                 "1: dec %[t]\n jnz 1b\n"
                 "mov %%r8, 0(%[g])\n mov %%r9, 8(%[g])\n mov %%r10, 16(%[g])\n mov %%r11, 24(%[g])\n"
                 "mov %%r12, 32(%[g])\n mov %%r13, 40(%[g])\n mov %%r14, 48(%[g])\n mov %%r15, 56(%[g])\n"
                 EACH(STORE) "vzeroupper\n"
                 : [t] "+r"(turns) : [v] "r"(vectors), [g] "r"(general)
                 : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", CLOBBERED);
}

/* The same where there are no wide vectors. */
__attribute__((noinline)) static void hold_sse(uint8_t (*vectors)[32], uint64_t turns)
{
#define LOAD_SSE(n) "movdqu 32*" #n "(%[v]), %%xmm" #n "\n"
#define STORE_SSE(n) "movdqu %%xmm" #n ", 32*" #n "(%[v])\n"
    asm volatile(EACH(LOAD_SSE) "1: dec %[t]\n jnz 1b\n" EACH(STORE_SSE) : [t] "+r"(turns) : [v] "r"(vectors) : "cc", CLOBBERED);
}

static void check_registers(uint64_t seed)
{
    uint8_t vectors[16][32], expected[16][32];
    uint64_t general[8], kept[8];
    for (int i = 0; i < 64; i++) {
        uint64_t word = mix(seed + i);
        memcpy(&expected[0][0] + 8 * i, &word, 8);
    }
    for (int i = 0; i < 8; i++)
        kept[i] = general[i] = mix(seed + 64 + i);
    memcpy(vectors, expected, sizeof vectors);
    unsigned rounding = _mm_getcsr();
    _mm_setcsr((rounding & ~0x6000u) | (seed & 3) << 13);
    if (__builtin_cpu_supports("avx"))
        hold_avx(vectors, general, 20000);
    else
        hold_sse(vectors, 20000);
    if ((_mm_getcsr() & 0x6000) != (seed & 3) << 13)
        register_errors++;
    _mm_setcsr(rounding);
    if (memcmp(vectors, expected, sizeof vectors) || memcmp(general, kept, sizeof kept))
        register_errors++;
}

static void *check(void *argument)
{
    uint64_t self = (uintptr_t)argument, seed = mix(self), next;
    uint64_t *memory = malloc(words * 8);
    if (!memory)
        err(1, "memory");
    for (size_t i = 0; i < words; i++)
        memory[i] = seed + i * 0x100000001B3;
    while (!stopping) {
        next = mix(seed);
        for (size_t i = 0; i < words; i++) {
            if (memory[i] != seed + i * 0x100000001B3) {
                if (memory_errors++ < 10)
                    say("@cpu wrong thread=%lu word=%zu found=%lx expected=%lx", self, i, memory[i], seed + i * 0x100000001B3);
            }
            memory[i] = next + i * 0x100000001B3;
            if (i % 65536 == 0)
                check_registers(next + i);
        }
        seed = next;
        passes++;
        if (pause_us)
            usleep(pause_us);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    if (count < 3)
        errx(2, "usage: check-cpu THREADS MIB [PAUSE-US]");
    size_t threads = number(arguments[1]);
    words = number(arguments[2]) << 17;
    pause_us = count > 3 ? number(arguments[3]) : 0;
    stop_on_signal();
    pthread_t started[threads];
    for (size_t i = 0; i < threads; i++) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        cpu_set_t where;
        CPU_ZERO(&where);
        CPU_SET(i % sysconf(_SC_NPROCESSORS_ONLN), &where);
        pthread_attr_setaffinity_np(&attributes, sizeof where, &where);
        if ((errno = pthread_create(&started[i], &attributes, check, (void *)(uintptr_t)i)))
            err(1, "thread");
    }
    for (size_t i = 0; i < threads; i++)
        pthread_join(started[i], NULL);
    say("@cpu passes=%llu memory-errors=%llu register-errors=%llu", passes, memory_errors, register_errors);
    return memory_errors || register_errors;
}
