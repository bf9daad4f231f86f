// VMs as baton-vmm makes them, and as much of a machine around them as the guest that checks itself needs.
#include "floor.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { START_INFO = 0x6000, MEMORY_MAP = 0x6100, COMMAND_LINE = 0x8000, PVH_NOTE = 18 };

struct features features;
static uint32_t entry;
static int kvm = -1, map_size;
static uint8_t serial[8] = { 0, 0, 0xc1, 0, 0, 0x60, 0xb0, 0 };

/// Bytes of RAM below the device hole; the rest is above 4 GiB.
static uint64_t low_ram(void) { return ram_size < 3ull << 30 ? ram_size : 3ull << 30; }

void load_guest(const char *path, const char *command_line)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat found;
    if (file < 0 || fstat(file, &found))
        fail(path);
    uint8_t *elf = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (elf == MAP_FAILED)
        fail("mapping the guest");
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(elf + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD)
            memcpy(ram + segments[i].p_paddr, elf + segments[i].p_offset, segments[i].p_filesz);
        if (segments[i].p_type == PT_NOTE) {
            const Elf64_Nhdr *note = (const Elf64_Nhdr *)(elf + segments[i].p_offset);
            if (note->n_type == PVH_NOTE)
                memcpy(&entry, (const uint8_t *)(note + 1) + ((note->n_namesz + 3) & ~3u), sizeof entry);
        }
    }
    if (!entry)
        fail("the guest has no PVH entry");
    munmap(elf, (size_t)found.st_size);
    close(file);
    strcpy((char *)ram + COMMAND_LINE, command_line);
    struct { uint32_t magic, version, flags, modules; uint64_t list, line, rsdp, map; uint32_t entries, reserved; } info = {
        .magic = 0x336ec578, .version = 1, .line = COMMAND_LINE, .map = MEMORY_MAP, .entries = ram_size > low_ram() ? 2 : 1,
    };
    struct { uint64_t address, size; uint32_t type, reserved; } map[] = {
        { 0x100000, low_ram() - 0x100000, 1, 0 }, { 1ull << 32, ram_size - low_ram(), 1, 0 },
    };
    memcpy(ram + START_INFO, &info, sizeof info);
    memcpy(ram + MEMORY_MAP, map, sizeof map);
}

static bool msr(int fd, unsigned long request, uint32_t index, uint64_t *value)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entry; } one = { .head.nmsrs = 1, .entry = { .index = index, .data = *value } };
    bool done = ioctl(fd, request, &one) == 1;
    *value = one.entry.data;
    return done;
}

/// A candidate that can be read and taken back belongs to the machine (Sources/VMM/Saving/MSRPlan.swift).
static void consider(int fd, uint32_t index)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < features.saved_count; i++)
        if (features.saved[i] == index)
            return;
    if (index == 0x10 || index == 0x11 || index == 0x12 || index == 0x4b564d00 || (index >> 16) == 0x4000 || features.saved_count >= MAX_MSRS)
        return;
    if (msr(fd, KVM_GET_MSRS, index, &value) && msr(fd, KVM_SET_MSRS, index, &value))
        features.saved[features.saved_count++] = index;
}

static void find_features(struct vm *vm)
{
    static struct { struct kvm_msr_list head; uint32_t indices[1024]; } list;
    int first = vm->vcpus[0].fd;
    features.sregs2 = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    features.xcrs = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
    features.xsave_size = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    features.nested_size = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE);
    if (features.xsave_size > XSAVE_ROOM || features.nested_size > NESTED_ROOM)
        fail("this host's state is larger than there is room for");
    uint64_t offset;
    struct kvm_device_attr attribute = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset };
    features.offset = ioctl(first, KVM_GET_DEVICE_ATTR, &attribute) == 0;
    list.head.nmsrs = 1024;
    call(kvm, KVM_GET_MSR_INDEX_LIST, &list, "KVM_GET_MSR_INDEX_LIST");
    for (uint32_t i = 0; i < list.head.nmsrs; i++)
        if (list.indices[i] != 0x6e0)
            consider(first, list.indices[i]);
    for (uint32_t i = 0x200; i <= 0x20f; i++)
        consider(first, i);
    for (uint32_t i = 0x268; i <= 0x26f; i++)
        consider(first, i);
    for (uint32_t i = 0; i < 40; i++)
        consider(first, 0x400 + i);
    const uint32_t others[] = { 0x250, 0x258, 0x259, 0x2ff, 0x17a, 0x6e0 };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        consider(first, others[i]);
    features.known = true;
}

static void prepare_cpuid(int index, int count, struct cpuid *table)
{
    *table = features.cpuid;
    for (uint32_t i = 0; i < table->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entries[i];
        if (e->function == 1) {
            e->ebx = (e->ebx & 0xffff) | (uint32_t)index << 24 | (uint32_t)count << 16;
            e->ecx |= 1u << 31 | 1u << 24;
        } else if (e->function == 0xb || e->function == 0x1f) {
            e->edx = (uint32_t)index;
        } else if (e->function == 0x40000000) {
            e->eax = 0x40000010;
        } else if (e->function == 0x40000001) {
            e->eax &= ~(1u << 4 | 1u << 10 | 1u << 14);
        }
    }
    table->entries[table->head.nent++] =
        (struct kvm_cpuid_entry2){ .function = 0x40000010, .eax = (uint32_t)features.tsc_khz, .ebx = 1000000 };
}

static void set_routes(int fd)
{
    struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[64]; } routes = { 0 };
    for (uint32_t gsi = 0; gsi < 24; gsi++) {
        if (gsi == 2)
            continue;
        if (gsi < 16)
            routes.entries[routes.head.nr++] = (struct kvm_irq_routing_entry){
                .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = gsi / 8, .pin = gsi % 8 } };
        routes.entries[routes.head.nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 2, .pin = gsi ? gsi : 2 } };
    }
    call(fd, KVM_SET_GSI_ROUTING, &routes, "KVM_SET_GSI_ROUTING");
}

struct vm *make_vm(int count)
{
    struct vm *vm = calloc(1, sizeof *vm);
    uint64_t identity = 0xfffbc000;
    struct kvm_pit_config pit = { 0 };
    if (kvm < 0 && ((kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0 || (map_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)) < 0))
        fail("/dev/kvm");
    vm->count = count;
    if ((vm->fd = ioctl(kvm, KVM_CREATE_VM, 0)) < 0)
        fail("KVM_CREATE_VM");
    ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    call(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR");
    call(vm->fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
    call(vm->fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
    set_routes(vm->fd);
    uint64_t low = low_ram();
    struct kvm_userspace_memory_region slots[] = {
        { .slot = 0, .memory_size = low, .userspace_addr = (uintptr_t)ram },
        { .slot = 1, .guest_phys_addr = 1ull << 32, .memory_size = ram_size - low, .userspace_addr = (uintptr_t)ram + low },
    };
    for (int i = 0; i < (ram_size > low ? 2 : 1); i++)
        call(vm->fd, KVM_SET_USER_MEMORY_REGION, &slots[i], "KVM_SET_USER_MEMORY_REGION");
    for (int i = 0; i < count; i++) {
        struct vcpu *vcpu = &vm->vcpus[i];
        vcpu->vm = vm;
        vcpu->index = i;
        if ((vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)i)) < 0)
            fail("KVM_CREATE_VCPU");
        vcpu->run = mmap(NULL, (size_t)map_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
        if (vcpu->run == MAP_FAILED)
            fail("mapping kvm_run");
        if (!features.tsc_khz) {
            features.cpuid.head.nent = 255;
            features.tsc_khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
            call(kvm, KVM_GET_SUPPORTED_CPUID, &features.cpuid, "KVM_GET_SUPPORTED_CPUID");
        }
        struct cpuid table;
        uint64_t banks = 10 | 1 << 8;
        prepare_cpuid(i, count, &table);
        call(vcpu->fd, KVM_SET_CPUID2, &table, "KVM_SET_CPUID2");
        call(vcpu->fd, KVM_X86_SETUP_MCE, &banks, "KVM_X86_SETUP_MCE");
    }
    if (!features.known)
        find_features(vm);
    return vm;
}

void start_at_entry(struct vm *vm)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rip = entry, .rflags = 2, .rbx = START_INFO };
    uint64_t cached = 0x806;
    for (int i = 0; i < vm->count; i++)
        msr(vm->vcpus[i].fd, KVM_SET_MSRS, 0x2ff, &cached);
    call(vm->vcpus[0].fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
    struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.selector = 8;
    sregs.cs.type = 0xb;
    sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
    sregs.cr0 = 0x11;
    call(vm->vcpus[0].fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
    call(vm->vcpus[0].fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void destroy_vm(struct vm *vm)
{
    for (int i = 0; i < vm->count; i++) {
        munmap(vm->vcpus[i].run, (size_t)map_size);
        close(vm->vcpus[i].fd);
    }
    close(vm->fd);
    free(vm);
}

/// A serial port whose output goes nowhere; nothing else is there.
bool handle_exit(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    if (run->exit_reason == KVM_EXIT_IO) {
        uint8_t *data = (uint8_t *)run + run->io.data_offset;
        unsigned number = run->io.port - 0x3f8u;
        for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
            if (run->io.direction == KVM_EXIT_IO_IN)
                memset(data, 0xff, run->io.size);
            if (number < 8 && run->io.direction == KVM_EXIT_IO_IN)
                *data = serial[number];
            else if (number == 1 || number == 3 || number == 4 || number == 7)
                serial[number] = *data;
        }
        return true;
    }
    if (run->exit_reason == KVM_EXIT_MMIO) {
        if (!run->mmio.is_write)
            memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        return true;
    }
    return run->exit_reason == KVM_EXIT_INTR || run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN || run->exit_reason == KVM_EXIT_HLT;
}
