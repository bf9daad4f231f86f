// A guest that has QEMU's `edu` devices (docs/specs/edu.rst of QEMU) passed through and lets all of them copy without a pause: from memory
// into the device and back, an interrupt at the end of each. A copy takes a device 100 ms, so that at any instant one is under way.
// After each round it compares what came back, and says so on COM1:
//
//     edu 12 rounds 24 copies 24 interrupts 0 spurious longest 104 ms
//
// or, once, `edu DAMAGE …`, and stops. Of its command line it takes `irq=msi` (unless said otherwise) or `irq=intx`, and `peers=1`: in each
// round the first device then has the second compute, by writing to its registers.
#include "../common/guest.h"

enum { EDU = 0x11e81234 };
enum { LAPIC = 0xfee00000, LAPIC_EOI = 0xb0, LAPIC_SPURIOUS = 0xf0, LAPIC_TIMER = 0x320, LAPIC_INITIAL_COUNT = 0x380, LAPIC_DIVIDE = 0x3e0 };
enum { IOAPIC = 0xfec00000 };
enum { VECTOR_TIMER = 0x40, VECTOR_DEVICE = 0x50, VECTOR_SPURIOUS = 0xff };
enum { DEVICES = 4 };
/// Registers of the device.
enum { IDENTIFICATION = 0x00, LIVENESS = 0x04, FACTORIAL = 0x08, STATUS = 0x20, INTERRUPT_STATUS = 0x24, ACKNOWLEDGE = 0x64, SOURCE = 0x80, DESTINATION = 0x88, COUNT = 0x90, COMMAND = 0x98 };
enum { START = 1, TO_MEMORY = 2, INTERRUPT = 4 };
enum { DEVICE_BUFFER = 0x40000, SIZE = 4096 };

struct edu {
    uint32_t slot, vector;
    volatile uint32_t *registers;
    volatile uint32_t interrupts, spurious;
};

static _Alignas(4096) volatile uint64_t outgoing[DEVICES][SIZE / 8], incoming[DEVICES][SIZE / 8];
static struct { uint64_t low, high; } idt[256];
static volatile uint32_t ticks;
static struct edu edus[DEVICES];
static uint32_t count;
extern const char device_entry_0[], device_entry_1[], device_entry_2[], device_entry_3[], timer_entry[], exception_entry[];

static _Noreturn void damage(const char *what, uint64_t value)
{
    say("edu DAMAGE ");
    say(what);
    say(" ");
    say_number(value);
    say("\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

void exception_taken(const uint64_t *frame) { damage("exception", frame[0]); }

static void set_lapic(uint32_t offset, uint32_t value) { *(volatile uint32_t *)(uintptr_t)(LAPIC + offset) = value; }
static uint32_t get(const struct edu *edu, uint32_t offset) { return edu->registers[offset / 4]; }
static void set(const struct edu *edu, uint32_t offset, uint32_t value) { edu->registers[offset / 4] = value; }
static void set64(const struct edu *edu, uint32_t offset, uint64_t value) { *(volatile uint64_t *)((uintptr_t)edu->registers + offset) = value; }

void timer_interrupt(void)
{
    ticks++;
    set_lapic(LAPIC_EOI, 0);
}

void device_interrupt(uint32_t index)
{
    struct edu *edu = &edus[index];
    uint32_t status = get(edu, INTERRUPT_STATUS);
    if (status) {
        set(edu, ACKNOWLEDGE, status);
        edu->interrupts++;
    } else {
        edu->spurious++;
    }
    set_lapic(LAPIC_EOI, 0);
}

static void set_gate(uint32_t vector, const char *entry)
{
    uint64_t address = (uintptr_t)entry;
    idt[vector].low = (address & 0xffff) | 8 << 16 | 0x8eull << 40 | (address >> 16 & 0xffff) << 48;
    idt[vector].high = address >> 32;
}

static void interrupts_start(void)
{
    for (uint32_t vector = 0; vector < 256; vector++)
        set_gate(vector, exception_entry);
    set_gate(VECTOR_TIMER, timer_entry);
    set_gate(VECTOR_DEVICE, device_entry_0);
    set_gate(VECTOR_DEVICE + 1, device_entry_1);
    set_gate(VECTOR_DEVICE + 2, device_entry_2);
    set_gate(VECTOR_DEVICE + 3, device_entry_3);
    struct __attribute__((packed)) { uint16_t limit; uint64_t base; } pointer = { sizeof idt - 1, (uintptr_t)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    set_lapic(LAPIC_SPURIOUS, 0x100 | VECTOR_SPURIOUS);
    set_lapic(LAPIC_DIVIDE, 0xb);
    set_lapic(LAPIC_TIMER, 1 << 17 | VECTOR_TIMER);
    set_lapic(LAPIC_INITIAL_COUNT, 50000000);  // 50 ms at 1 GHz: only so that a wait for nothing ends
    __asm__ volatile("sti");
}

static void devices_find(void)
{
    for (uint32_t slot = 1; slot < 32 && count < DEVICES; slot++) {
        if (configuration(slot, 0) != EDU)
            continue;
        struct edu *edu = &edus[count];
        edu->slot = slot;
        edu->vector = VECTOR_DEVICE + count++;
        edu->registers = (volatile uint32_t *)(uintptr_t)(configuration(slot, 0x10) & ~0xfu);
        set_configuration(slot, 4, 6);  // memory, DMA
        if ((get(edu, IDENTIFICATION) & 0xff) != 0xed)
            damage("identification", get(edu, IDENTIFICATION));
        set(edu, LIVENESS, 0x12345678);
        if (get(edu, LIVENESS) != ~0x12345678u)
            damage("liveness", get(edu, LIVENESS));
        while (get(edu, COMMAND) & START)  // what an earlier guest began: nobody can reset this device
            __asm__ volatile("pause");
        set(edu, ACKNOWLEDGE, get(edu, INTERRUPT_STATUS));
    }
    if (!count)
        damage("no device", 0);
}

static void messages_start(const struct edu *edu)
{
    uint32_t msi = capability(edu->slot, 5, 0);
    if (!msi)
        damage("no MSI", edu->slot);
    bool wide = configuration(edu->slot, msi) >> 16 & 0x80;
    set_configuration(edu->slot, msi + 4, LAPIC);
    if (wide)
        set_configuration(edu->slot, msi + 8, 0);
    set_configuration(edu->slot, msi + (wide ? 12 : 8), edu->vector);
    set_configuration(edu->slot, msi, configuration(edu->slot, msi) | 1 << 16);
}

/// A pin of the I/O APIC above those of ISA: 16 + (device + pin) mod 8, level-triggered and active low.
static void line_start(const struct edu *edu)
{
    uint32_t pin = configuration(edu->slot, 0x3c) >> 8 & 0xff;
    if (!pin)
        damage("no interrupt line", edu->slot);
    uint32_t entry = 0x10 + 2 * (16 + (edu->slot + pin - 1) % 8);
    *(volatile uint32_t *)IOAPIC = entry + 1;
    *(volatile uint32_t *)(IOAPIC + 0x10) = 0;
    *(volatile uint32_t *)IOAPIC = entry;
    *(volatile uint32_t *)(IOAPIC + 0x10) = 1 << 15 | 1 << 13 | edu->vector;
}

static void start(const struct edu *edu, uint64_t source, uint64_t destination, uint64_t size, uint32_t command)
{
    set64(edu, SOURCE, source);
    set64(edu, DESTINATION, destination);
    set64(edu, COUNT, size);
    set64(edu, COMMAND, command | START | INTERRUPT);
}

/// Waits until a device has made its interrupt number `wanted`, or does not return.
static void wait(const struct edu *edu, uint32_t wanted)
{
    uint32_t began = ticks;
    while (edu->interrupts < wanted) {
        if (ticks - began > 200)
            damage(get(edu, INTERRUPT_STATUS) ? "interrupt lost after copy" : "device stands still after copy", wanted);
        __asm__ volatile("cli");
        if (edu->interrupts < wanted)
            __asm__ volatile("sti; hlt");
        __asm__ volatile("sti");
    }
    if (get(edu, COMMAND) & START)
        damage("interrupt before the end of copy", wanted);
}

/// The first device writes 5 into the second one's register, which then holds 120. `word` is memory for the number.
static void peers(volatile uint64_t *word)
{
    set(&edus[1], FACTORIAL, 0);
    *word = 5;
    uint32_t before = edus[0].interrupts;
    start(&edus[0], (uintptr_t)word, DEVICE_BUFFER, 8, 0);
    wait(&edus[0], before + 1);
    start(&edus[0], DEVICE_BUFFER, (uintptr_t)edus[1].registers + FACTORIAL, 4, TO_MEMORY);
    wait(&edus[0], before + 2);
    while (get(&edus[1], STATUS) & 1)
        __asm__ volatile("pause");
    if (get(&edus[1], FACTORIAL) != 120)
        damage("what one device had another compute", get(&edus[1], FACTORIAL));
}

static void say_account(uint64_t round, uint64_t copies, uint64_t longest)
{
    uint64_t interrupts = 0, spurious = 0;
    for (uint32_t i = 0; i < count; i++)
        interrupts += edus[i].interrupts, spurious += edus[i].spurious;
    if (interrupts != copies || spurious)
        damage(spurious ? "an interrupt without a reason in round" : "interrupts in round", round);
    say("edu ");
    say_number(round);
    say(" rounds ");
    say_number(copies);
    say(" copies ");
    say_number(interrupts);
    say(" interrupts ");
    say_number(spurious);
    say(" spurious longest ");
    say_number(longest);
    say(" ms\n");
}

void boot(const struct start_info *info)
{
    const char *words = command_line(info);
    bool line = option(words, "irq=intx"), with_peers = option(words, "peers=1");
    interrupts_start();
    devices_find();
    for (uint32_t i = 0; i < count; i++)
        line ? line_start(&edus[i]) : messages_start(&edus[i]);
    say(line ? "edu ready intx " : "edu ready msi ");
    say_number(count);
    say("\n");
    uint64_t khz = tsc_khz(), longest = 0, copies = 0, n = 0x9e3779b97f4a7c15;
    for (uint64_t round = 1;; round++) {
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t word = 0; word < SIZE / 8; word++) {
                outgoing[i][word] = n = n * 6364136223846793005 + round;
                incoming[i][word] = ~n;
            }
        }
        for (uint32_t half = 0; half < 2; half++) {
            uint64_t began = rdtsc();
            uint32_t wanted[DEVICES];
            for (uint32_t i = 0; i < count; i++) {
                wanted[i] = edus[i].interrupts + 1;
                if (half)
                    start(&edus[i], DEVICE_BUFFER, (uintptr_t)incoming[i], SIZE, TO_MEMORY);
                else
                    start(&edus[i], (uintptr_t)outgoing[i], DEVICE_BUFFER, SIZE, 0);
            }
            for (uint32_t i = 0; i < count; i++)
                wait(&edus[i], wanted[i]);
            copies += count;
            uint64_t took = (rdtsc() - began) / khz;
            if (took > longest)
                longest = took;
        }
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t word = 0; word < SIZE / 8; word++)
                if (incoming[i][word] != outgoing[i][word])
                    damage("data of round", round);
        if (with_peers && count > 1) {
            peers(outgoing[0]);
            copies += 2;
        }
        say_account(round, copies, longest);
    }
}
