// What the small guests of one vCPU have in common: the serial line, PCI configuration, the command line.
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>

#include "cpu.h"

/// What a PVH loader leaves (struct hvm_start_info).
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp;
};

/// As CPUID says; 1 GHz where it does not.
static inline uint64_t tsc_khz(void)
{
    uint32_t khz = cpuid(0x40000010, 0).eax;
    return khz ? khz : 1000000;
}

// The serial line

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, TRANSMITTER_EMPTY = 0x20 };

static inline void say(const char *text)
{
    for (; *text; text++) {
        while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY))
            relax();
        outb(COM1, (uint8_t)*text);
    }
}

static inline void say_number(uint64_t n)
{
    char digits[21], *p = digits + 20;
    *p = 0;
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    say(p);
}

// Functions of PCI bus 0

enum { CONFIGURATION_ADDRESS = 0xcf8, CONFIGURATION_DATA = 0xcfc };

/// The 32 bits at `offset`, a multiple of 4.
static inline uint32_t configuration(uint32_t slot, uint32_t offset)
{
    outl(CONFIGURATION_ADDRESS, 1u << 31 | slot << 11 | offset);
    return inl(CONFIGURATION_DATA);
}

static inline void set_configuration(uint32_t slot, uint32_t offset, uint32_t value)
{
    outl(CONFIGURATION_ADDRESS, 1u << 31 | slot << 11 | offset);
    outl(CONFIGURATION_DATA, value);
}

/// The first capability `kind` after the one at `after`; with 0, the first of all. 0: there is none.
static inline uint32_t capability(uint32_t slot, uint32_t kind, uint32_t after)
{
    uint32_t at = after ? configuration(slot, after) >> 8 & 0xfc : configuration(slot, 0x34) & 0xfc;
    while (at && (configuration(slot, at) & 0xff) != kind)
        at = configuration(slot, at) >> 8 & 0xfc;
    return at;
}

// The command line

/// Null where there is none.
static inline const char *command_line(const struct start_info *info)
{
    return info->magic == 0x336ec578 ? (const char *)info->command_line : 0;
}

/// What follows `word` in the command line; null: it is not there.
static inline const char *option(const char *line, const char *word)
{
    for (; line && *line; line++) {
        const char *a = line, *b = word;
        while (*b && *a == *b)
            a++, b++;
        if (!*b)
            return a;
    }
    return 0;
}

/// The number behind `word`, from 1 to `most`; `usual` where there is none.
static inline uint32_t number(const char *line, const char *word, uint32_t usual, uint32_t most)
{
    const char *digit = option(line, word);
    uint32_t n = 0;
    for (; digit && *digit >= '0' && *digit <= '9' && n <= most; digit++)
        n = n * 10 + (uint32_t)(*digit - '0');
    return n == 0 ? usual : n > most ? most : n;
}

#endif
