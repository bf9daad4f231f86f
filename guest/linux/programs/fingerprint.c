/* Prints what the guest can see of its machine, and what must not change: fingerprint
 *
 * Lines `@print KIND NAME VALUE`: CPUID of every processor, configuration space of every PCI function, every ACPI table, every MSR that
 * can be read and does not count by itself. Values are hexadecimal bytes or, for ACPI tables, a checksum with the length. */
#include "load.h"
#include <cpuid.h>
#include <dirent.h>
#include <sched.h>
#include <sys/stat.h>

static uint64_t digest(const uint8_t *data, size_t length)
{
    uint64_t sum = 0xCBF29CE484222325;
    for (size_t i = 0; i < length; i++)
        sum = mix(sum ^ data[i]);
    return sum;
}

static size_t contents(const char *path, uint8_t *data, size_t most)
{
    size_t length = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; file >= 0 && length < most && got > 0; length += got > 0 ? got : 0)
        got = read(file, data + length, most - length);
    if (file >= 0)
        close(file);
    return length;
}

/* The APIC id and what else names the processor one happens to run on is the same each time for each processor. */
static void print_cpuid(int processor)
{
    static const uint32_t bases[] = { 0, 0x40000000, 0x80000000 };
    for (int b = 0; b < 3; b++) {
        uint32_t top, eax, ebx, ecx, edx;
        __cpuid(bases[b], top, ebx, ecx, edx);
        if (top < bases[b] || top > bases[b] + 0x100)
            continue;
        for (uint32_t leaf = bases[b]; leaf <= top; leaf++) {
            int subleaves = leaf == 4 || leaf == 7 || leaf == 0xB || leaf == 0xD || leaf == 0x8000001D ? 8 : 1;
            for (int sub = 0; sub < subleaves; sub++) {
                __cpuid_count(leaf, sub, eax, ebx, ecx, edx);
                if (eax | ebx | ecx | edx)
                    say("@print cpuid %d.%08x.%d %08x%08x%08x%08x", processor, leaf, sub, eax, ebx, ecx, edx);
            }
        }
    }
}

static void print_msrs(int processor)
{
    static const struct { uint32_t first, last; } ranges[] = {
        { 0, 0x3FF }, { 0x480, 0x4FF }, { 0x600, 0x6FF }, { 0x800, 0x80F }, { 0xC80, 0xCFF }, { 0xD90, 0xDAF }, { 0x4B564D00, 0x4B564D10 },
        { 0x40000000, 0x400000FF }, { 0xC0000080, 0xC0000110 }, { 0xC0010000, 0xC001007F }, { 0xC0010110, 0xC001014F },
    };
    /* Counters, deadlines, and what the kernel switches with each task. */
    static const uint32_t volatile_ones[] = { 0x10, 0x3B, 0x48, 0x49, 0xC1, 0xE7, 0xE8, 0x6E0, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0010015 };
    char path[64];
    snprintf(path, sizeof path, "/dev/cpu/%d/msr", processor);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        say("@print msr %d.none 0", processor);
        return;
    }
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
        for (uint64_t msr = ranges[r].first; msr <= ranges[r].last; msr++) {
            uint64_t value;
            int skip = 0;
            for (size_t v = 0; v < sizeof volatile_ones / 4; v++)
                skip |= msr == volatile_ones[v];
            if (!skip && pread(file, &value, 8, msr) == 8)
                say("@print msr %d.%08lx %016lx", processor, msr, value);
        }
    close(file);
}

static void print_hex(const char *kind, const char *name, const uint8_t *data, size_t length)
{
    char text[513];
    for (size_t at = 0; at < length; at += 256) {
        size_t n = length - at < 256 ? length - at : 256;
        int blank = 1;
        for (size_t i = 0; i < n; i++) {
            snprintf(text + 2 * i, 3, "%02x", data[at + i]);
            blank &= data[at + i] == 0;
        }
        if (!blank)
            say("@print %s %s.%03zx %s", kind, name, at, text);
    }
}

static void each_file(const char *directory, const char *below, const char *kind)
{
    static uint8_t data[1 << 20];
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[512];
        struct stat status;
        snprintf(path, sizeof path, "%s/%s%s", directory, entries[i]->d_name, below);
        if (entries[i]->d_name[0] == '.' || stat(path, &status) || !S_ISREG(status.st_mode))
            continue;
        size_t length = contents(path, data, sizeof data);
        if (length <= 4096)
            print_hex(kind, entries[i]->d_name, data, length);
        say("@print %s %s %zu:%016lx", kind, entries[i]->d_name, length, digest(data, length));
    }
}

int main(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < processors; i++) {
        cpu_set_t where;
        CPU_ZERO(&where);
        CPU_SET(i, &where);
        if (sched_setaffinity(0, sizeof where, &where))
            err(1, "processor %ld", i);
        print_cpuid(i);
        print_msrs(i);
    }
    each_file("/sys/bus/pci/devices", "/config", "pci");
    each_file("/sys/firmware/acpi/tables", "", "acpi");
    say("@print end");
    return 0;
}
