/* What the load programs have in common: lines that are written whole, an end on SIGTERM, pseudo-random content that both sides can make. */
#pragma once
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Set by SIGTERM and SIGINT. */
static volatile sig_atomic_t stopping;

static void stop(int signal) { (void)signal; stopping = 1; }

/* No SA_RESTART: a blocking call ends, so that the flag is seen. */
static inline void stop_on_signal(void)
{
    struct sigaction action = { .sa_handler = stop };
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* One line to standard output by one write: lines of several programs on one terminal do not mix. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    for (int done = 0; done < length;) {
        ssize_t written = write(1, line + done, length - done);
        if (written < 0 && errno != EINTR)
            return;
        if (written > 0)
            done += written;
    }
}

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* splitmix64: any position of the sequence can be made by itself. */
static inline uint64_t mix(uint64_t position)
{
    uint64_t z = position * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static inline unsigned long number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 0);
    if (errno || *end || end == text)
        errx(2, "not a number: %s", text);
    return value;
}
