// A guest that keeps its virtio disk busy: `depth=N` requests (1) of `blocks=N` times 4 KiB (1) are always under way, writes and reads in
// turn, and what comes back has to be what was written last. Each request's time goes into an account that the host can read (account.h).
// It has one vCPU and takes no interrupts: it watches the queue's used ring.
//
// It says `disk ready …` on COM1; when a request fails, an answer makes no sense or data is not what was written, `disk DAMAGE …`, and stops.
#include "../common/guest.h"
#include "account.h"

// Virtio 1.2: §4.1 (PCI), §2.7 (split virtqueues), §5.2 (block)
enum { VIRTIO_BLOCK = 0x10421af4 };
enum { VENDOR_CAPABILITY = 9, COMMON = 1, NOTIFY = 2, DEVICE = 4 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { FEATURE_FLUSH = 1 << 9, FEATURE_VERSION_1 = 1 << 0 };  // of the first and the second word
enum { NEXT = 1, DEVICE_WRITES = 2, NO_INTERRUPT = 1, NO_NOTIFY = 1, NO_VECTOR = 0xffff };
enum { READ = 0, WRITE = 1 };

enum { QUEUE = 128, SLOTS = 32, BLOCKS = 32, BLOCK = 4096, SECTORS = BLOCK / 512, PLACES = 64 };

enum damage { NO_DEVICE = 1, NO_QUEUE, REFUSED, TOO_SMALL, UNKNOWN_ANSWER, FAILED, WRONG_DATA };

struct common {
    uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
    uint16_t config_vector, queues;
    uint8_t status, generation;
    uint16_t queue, queue_size, queue_vector, queue_enable, queue_notify;
    uint64_t descriptors, driver, device;
};

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct used {
    uint32_t id, length;
};

/// A place on the disk of its own, its buffer, and the request that is under way.
struct slot {
    uint32_t header[2];
    uint64_t sector;
    volatile uint8_t status;
    uint32_t place;
    uint64_t submitted;             // 0: its time does not count
    uint32_t generations[PLACES];   // of what is there; 0: not written yet
    bool writes;
};

static _Alignas(4096) volatile uint64_t buffers[SLOTS][BLOCKS][BLOCK / 8];
static _Alignas(16) struct descriptor descriptors[QUEUE];
static _Alignas(16) struct { volatile uint16_t flags, index, ring[QUEUE], event; } available;
static _Alignas(16) struct { volatile uint16_t flags, index; volatile struct used ring[QUEUE]; uint16_t event; } used;
static struct slot slots[SLOTS];
static struct account *const account = (struct account *)ACCOUNT;
static volatile uint16_t *doorbell;
static uint32_t depth, blocks, generation;
static uint64_t noise = 0x9e3779b97f4a7c15;

static _Noreturn void damage(enum damage code, uint64_t where, uint64_t expected, uint64_t found)
{
    account->where = where;
    account->expected = expected;
    account->found = found;
    *(volatile uint64_t *)&account->damage = code;
    say("disk DAMAGE ");
    say_number(code);
    say(" at ");
    say_number(where);
    say(" expected ");
    say_number(expected);
    say(" found ");
    say_number(found);
    say("\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

/// Everything before it is visible to the device before anything after it is done.
static void fence(void) { __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory", "cc"); }

// The device

static volatile uint8_t *region(uint32_t slot, uint32_t at)
{
    uint32_t bar = configuration(slot, at + 4) & 0xff, low = configuration(slot, 0x10 + 4 * bar);
    if ((low & 6) == 4 && configuration(slot, 0x14 + 4 * bar))
        damage(NO_DEVICE, slot, 0, configuration(slot, 0x14 + 4 * bar));  // above what is mapped
    return (volatile uint8_t *)(uintptr_t)((low & ~0xfu) + configuration(slot, at + 8));
}

/// Starts the first disk; its size in sectors.
static uint64_t start_disk(void)
{
    uint32_t slot = 1;
    while (slot < 32 && configuration(slot, 0) != VIRTIO_BLOCK)
        slot++;
    if (slot == 32)
        damage(NO_DEVICE, 0, VIRTIO_BLOCK, 0);
    set_configuration(slot, 4, 6);  // memory, DMA
    volatile struct common *common = 0;
    volatile uint8_t *bells = 0, *device = 0;
    uint32_t stride = 0;
    for (uint32_t at = capability(slot, VENDOR_CAPABILITY, 0); at; at = capability(slot, VENDOR_CAPABILITY, at)) {
        uint32_t kind = configuration(slot, at) >> 24;
        if (kind == COMMON && !common)
            common = (volatile struct common *)region(slot, at);
        if (kind == DEVICE && !device)
            device = region(slot, at);
        if (kind == NOTIFY && !bells) {
            bells = region(slot, at);
            stride = configuration(slot, at + 16);
        }
    }
    if (!common || !bells || !device)
        damage(NO_DEVICE, slot, 0, 0);
    common->status = 0;
    while (common->status)
        relax();
    common->status = ACKNOWLEDGE | DRIVER;
    common->driver_feature_select = 0;
    common->driver_feature = FEATURE_FLUSH;
    common->driver_feature_select = 1;
    common->driver_feature = FEATURE_VERSION_1;
    common->status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    if (!(common->status & FEATURES_OK))
        damage(REFUSED, slot, FEATURES_OK, common->status);
    common->queue = 0;
    if (common->queue_size < QUEUE)
        damage(NO_QUEUE, slot, QUEUE, common->queue_size);
    common->queue_size = QUEUE;
    common->queue_vector = NO_VECTOR;
    // Each half by itself: wider accesses are not promised (§4.1.3.1).
    volatile uint32_t *addresses = (volatile uint32_t *)&common->descriptors;
    uint64_t places[3] = { (uintptr_t)descriptors, (uintptr_t)&available, (uintptr_t)&used };
    for (uint32_t i = 0; i < 3; i++) {
        addresses[2 * i] = (uint32_t)places[i];
        addresses[2 * i + 1] = (uint32_t)(places[i] >> 32);
    }
    doorbell = (volatile uint16_t *)(bells + common->queue_notify * stride);
    available.flags = NO_INTERRUPT;
    common->queue_enable = 1;
    common->status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    volatile uint32_t *capacity = (volatile uint32_t *)device;
    return capacity[0] | (uint64_t)capacity[1] << 32;
}

// Requests

/// The first and, inverted, the last word of a block.
static uint64_t stamp(uint32_t slot, uint32_t place, uint32_t block, uint32_t generation)
{
    return ((uint64_t)generation << 32 | slot << 24 | place << 16 | block) * 0x9e3779b97f4a7c15;
}

static void submit(uint32_t index)
{
    struct slot *slot = &slots[index];
    noise = noise * 6364136223846793005 + 1442695040888963407;
    slot->place = noise >> 58;
    slot->writes = !slot->writes;
    if (slot->writes)
        generation++;
    for (uint32_t block = 0; block < blocks; block++) {
        uint64_t value = slot->writes ? stamp(index, slot->place, block, generation) : 0;
        buffers[index][block][0] = value;
        buffers[index][block][BLOCK / 8 - 1] = slot->writes ? ~value : 0;
    }
    if (slot->writes)
        slot->generations[slot->place] = generation;
    slot->header[0] = slot->writes ? WRITE : READ;
    slot->sector = ((uint64_t)index * PLACES + slot->place) * blocks * SECTORS;
    slot->status = 0xff;
    descriptors[3 * index + 1].flags = slot->writes ? NEXT : NEXT | DEVICE_WRITES;
    available.ring[available.index % QUEUE] = (uint16_t)(3 * index);
    slot->submitted = rdtsc();
    fence();
    available.index++;
    fence();
    if (!(used.flags & NO_NOTIFY))
        *doorbell = 0;
}

static void compare(uint32_t index)
{
    struct slot *slot = &slots[index];
    uint32_t written = slot->generations[slot->place];
    if (slot->writes || !written)
        return;
    for (uint32_t block = 0; block < blocks; block++) {
        uint64_t expected = stamp(index, slot->place, block, written);
        uint64_t first = buffers[index][block][0], last = ~buffers[index][block][BLOCK / 8 - 1];
        if (first != expected || last != expected)
            damage(WRONG_DATA, slot->sector + block * SECTORS, expected, first != expected ? first : last);
    }
    account->compared += blocks;
}

/// 16 buckets to an octave, by the four bits that follow the leading one.
static uint32_t bucket(uint64_t ticks)
{
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(ticks | 16);
    return octave * 16 + (ticks >> (octave - 4) & 15);
}

static void complete(uint32_t id, uint64_t now)
{
    uint32_t index = id / 3;
    if (id % 3 || index >= depth)
        damage(UNKNOWN_ANSWER, id, 0, id);
    struct slot *slot = &slots[index];
    if (slot->status != 0)
        damage(FAILED, slot->sector, 0, slot->status);
    if (slot->submitted) {
        uint64_t took = now - slot->submitted;
        account->buckets[bucket(took)]++;
        if (took > account->longest)
            account->longest = took;
    }
    compare(index);
    account->requests++;
    account->answered[index]++;
    submit(index);
}

/// What is under way began before: it counts no more.
static void begin_anew(uint32_t request)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        *(volatile uint32_t *)&account->buckets[i] = 0;
    account->longest = 0;
    for (uint32_t i = 0; i < depth; i++)
        slots[i].submitted = 0;
    *(volatile uint32_t *)&account->reset_done = request;
}

void boot(const struct start_info *info)
{
    const char *line = command_line(info);
    depth = number(line, "depth=", 1, SLOTS);
    blocks = number(line, "blocks=", 1, BLOCKS);
    uint64_t sectors = start_disk(), needed = (uint64_t)depth * PLACES * blocks * SECTORS;
    if (sectors < needed)
        damage(TOO_SMALL, 0, needed, sectors);
    account->version = ACCOUNT_VERSION;
    account->depth = depth;
    account->blocks = blocks;
    account->tsc_khz = tsc_khz();
    for (uint32_t i = 0; i < depth; i++) {
        struct descriptor *three = &descriptors[3 * i];
        three[0] = (struct descriptor){ (uintptr_t)slots[i].header, 16, NEXT, (uint16_t)(3 * i + 1) };
        three[1] = (struct descriptor){ (uintptr_t)buffers[i], blocks * BLOCK, NEXT, (uint16_t)(3 * i + 2) };
        three[2] = (struct descriptor){ (uintptr_t)&slots[i].status, 1, DEVICE_WRITES, 0 };
    }
    say("disk ready depth ");
    say_number(depth);
    say(" blocks ");
    say_number(blocks);
    say(" sectors ");
    say_number(sectors);
    say("\n");
    *(volatile uint64_t *)&account->magic = ACCOUNT_MAGIC;
    for (uint32_t i = 0; i < depth; i++)
        submit(i);
    for (uint16_t seen = 0;;) {
        uint32_t request = *(volatile uint32_t *)&account->reset_request;
        if (request != account->reset_done)
            begin_anew(request);
        if (used.index == seen)
            relax();
        else
            complete(used.ring[seen++ % QUEUE].id, rdtsc());
    }
}
