#define _GNU_SOURCE
#include "clinux_vfio.h"
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// Zero, or what went wrong.
static int set(int fd, unsigned long request, void *argument) {
    int r = ioctl(fd, request, argument);
    return r < 0 ? -errno : r > 0 ? -EIO : 0;
}

int cl_vfio_api_version(int container) {
    int r = ioctl(container, VFIO_GET_API_VERSION);
    return r < 0 ? -errno : r;
}

int cl_vfio_check_extension(int container, unsigned extension) {
    int r = ioctl(container, VFIO_CHECK_EXTENSION, (unsigned long)extension);
    return r < 0 ? -errno : r;
}

int cl_vfio_set_iommu(int container, unsigned type) { return ioctl(container, VFIO_SET_IOMMU, (unsigned long)type) < 0 ? -errno : 0; }

// Where the capability `id` of an answer of `length` bytes lies, whose chain begins at `first`; NULL when it has none such. Never beyond the end.
static const char *capability(const char *answer, size_t length, uint32_t first, uint16_t id, size_t size) {
    uint32_t at = first;
    for (int hops = 0; at && hops < 64; hops++) {
        struct vfio_info_cap_header header;
        if (at > length || length - at < sizeof header) return NULL;
        memcpy(&header, answer + at, sizeof header);
        if (header.id == id) return length - at < size ? NULL : answer + at;
        at = header.next;
    }
    return NULL;
}

enum { answer_room = 64 << 10 };

// Asks with an argument that starts with its own size; asks again when the answer needs more room, up to `answer_room`.
static int ask(int fd, unsigned long request, char *answer, size_t least, uint32_t *length) {
    uint32_t room = (uint32_t)least, argsz;
    char question[64];
    memcpy(question, answer, least);
    for (int tries = 0; tries < 3; tries++) {
        memcpy(answer, question, least);
        memcpy(answer, &room, sizeof room);
        int r = set(fd, request, answer);
        if (r < 0) return r;
        memcpy(&argsz, answer, sizeof argsz);
        if (argsz <= room) {
            *length = room;
            return 0;
        }
        if (argsz > answer_room) return -E2BIG;
        room = argsz;
    }
    return -E2BIG;
}

int cl_vfio_iommu_info(int container, struct cl_vfio_iommu *info, struct cl_range *ranges, unsigned room, unsigned *count) {
    char *answer = calloc(1, answer_room);
    if (!answer) return -ENOMEM;
    uint32_t length = 0;
    *count = 0;
    int r = ask(container, VFIO_IOMMU_GET_INFO, answer, sizeof(struct vfio_iommu_type1_info), &length);
    if (!r) {
        struct vfio_iommu_type1_info told;
        memcpy(&told, answer, sizeof told);
        *info = (struct cl_vfio_iommu){ .page_sizes = told.flags & VFIO_IOMMU_INFO_PGSIZES ? told.iova_pgsizes : 4096, .mappings_left = UINT32_MAX };
        uint32_t first = told.flags & VFIO_IOMMU_INFO_CAPS ? told.cap_offset : 0;
        const char *left = capability(answer, length, first, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, sizeof(struct vfio_iommu_type1_info_dma_avail));
        if (left) memcpy(&info->mappings_left, left + sizeof(struct vfio_info_cap_header), sizeof info->mappings_left);
        struct vfio_iommu_type1_info_cap_iova_range head;
        const char *usable = capability(answer, length, first, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, sizeof head);
        if (usable) {
            memcpy(&head, usable, sizeof head);
            size_t rest = length - (size_t)(usable - answer) - sizeof head;
            for (unsigned i = 0; i < head.nr_iovas && i < room && (i + 1) * sizeof(struct cl_range) <= rest; i++)
                memcpy(&ranges[(*count)++], usable + sizeof head + i * sizeof(struct cl_range), sizeof(struct cl_range));
        }
    }
    free(answer);
    return r;
}

int cl_vfio_map(int container, uint32_t flags, uint64_t address, uint64_t iova, uint64_t size) {
    struct vfio_iommu_type1_dma_map map = { .argsz = sizeof map, .flags = flags, .vaddr = address, .iova = iova, .size = size };
    return set(container, VFIO_IOMMU_MAP_DMA, &map);
}

int cl_vfio_unmap(int container, uint32_t flags, uint64_t iova, uint64_t size, uint64_t *unmapped) {
    struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .flags = flags, .iova = iova, .size = size };
    int r = set(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
    *unmapped = r < 0 ? 0 : unmap.size;
    return r;
}

int cl_vfio_group_status(int group, uint32_t *flags) {
    struct vfio_group_status status = { .argsz = sizeof status };
    int r = set(group, VFIO_GROUP_GET_STATUS, &status);
    *flags = status.flags;
    return r;
}

int cl_vfio_group_set_container(int group, int container) { return set(group, VFIO_GROUP_SET_CONTAINER, &container); }
int cl_vfio_group_unset_container(int group) { return set(group, VFIO_GROUP_UNSET_CONTAINER, NULL); }

int cl_vfio_group_device(int group, const char *name) {
    int fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
    return fd < 0 ? -errno : fd;
}

int cl_vfio_device_info(int device, struct cl_vfio_device *info) {
    // Without room for capabilities: what they say is not needed.
    struct vfio_device_info told = { .argsz = sizeof told };
    int r = set(device, VFIO_DEVICE_GET_INFO, &told);
    if (!r) *info = (struct cl_vfio_device){ .flags = told.flags, .regions = told.num_regions, .interrupts = told.num_irqs };
    return r;
}

int cl_vfio_region_info(int device, unsigned index, struct cl_vfio_region *info, struct cl_range *areas, unsigned room, unsigned *count) {
    char *answer = calloc(1, answer_room);
    if (!answer) return -ENOMEM;
    struct vfio_region_info told = { .index = index };
    memcpy(answer, &told, sizeof told);
    uint32_t length = 0;
    *count = 0;
    int r = ask(device, VFIO_DEVICE_GET_REGION_INFO, answer, sizeof told, &length);
    if (!r) {
        memcpy(&told, answer, sizeof told);
        uint32_t first = told.flags & VFIO_REGION_INFO_FLAG_CAPS ? told.cap_offset : 0;
        *info = (struct cl_vfio_region){ .flags = told.flags, .size = told.size, .offset = told.offset };
        info->msix_mappable = capability(answer, length, first, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, sizeof(struct vfio_info_cap_header)) != NULL;
        struct vfio_region_info_cap_sparse_mmap head;
        const char *sparse = capability(answer, length, first, VFIO_REGION_INFO_CAP_SPARSE_MMAP, sizeof head);
        if (sparse) {
            memcpy(&head, sparse, sizeof head);
            size_t rest = length - (size_t)(sparse - answer) - sizeof head;
            struct vfio_region_sparse_mmap_area area;
            for (unsigned i = 0; i < head.nr_areas && *count < room && (i + 1) * sizeof area <= rest; i++) {
                memcpy(&area, sparse + sizeof head + i * sizeof area, sizeof area);
                if (area.size) areas[(*count)++] = (struct cl_range){ area.offset, area.offset + area.size - 1 };
            }
        }
    }
    free(answer);
    return r;
}

int cl_vfio_interrupt_info(int device, unsigned index, uint32_t *flags, uint32_t *count) {
    struct vfio_irq_info told = { .argsz = sizeof told, .index = index };
    int r = set(device, VFIO_DEVICE_GET_IRQ_INFO, &told);
    *flags = told.flags;
    *count = r ? 0 : told.count;
    return r;
}

int cl_vfio_set_interrupts(int device, uint32_t flags, unsigned index, unsigned start, unsigned count, const int32_t *events) {
    if (count > CL_VFIO_VECTORS) return -EINVAL;
    char argument[sizeof(struct vfio_irq_set) + CL_VFIO_VECTORS * sizeof(int32_t)];
    size_t data = flags & CL_VFIO_DATA_EVENTFD ? count * sizeof(int32_t) : 0;
    struct vfio_irq_set head = { .argsz = (uint32_t)(sizeof head + data), .flags = flags, .index = index, .start = start, .count = count };
    memcpy(argument, &head, sizeof head);
    if (data) memcpy(argument + sizeof head, events, data);
    return set(device, VFIO_DEVICE_SET_IRQS, argument);
}

int cl_vfio_reset(int device) { return set(device, VFIO_DEVICE_RESET, NULL); }

int64_t cl_vfio_write(int device, const void *buffer, size_t length, int64_t offset) {
    ssize_t n;
    do n = pwrite(device, buffer, length, offset); while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
