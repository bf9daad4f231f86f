#define _GNU_SOURCE
#include "clinux_vfio.h"
#include <errno.h>
#include <sys/ioctl.h>

// linux/iommufd.h and what linux/vfio.h has of it are newer than the headers this is built against: requests and structures as Linux 7.2
// has them. Requests carry no sizes; every structure starts with its own.
#define REQUEST(number) ((unsigned long)(';' << 8 | (number)))
#define VFIO_BIND REQUEST(100 + 18)
#define VFIO_ATTACH REQUEST(100 + 19)
#define VFIO_DETACH REQUEST(100 + 20)
#define IOMMU_DESTROY REQUEST(0x80)
#define IOMMU_IOAS_ALLOC REQUEST(0x81)
#define IOMMU_IOAS_IOVA_RANGES REQUEST(0x84)
#define IOMMU_IOAS_UNMAP REQUEST(0x86)
#define IOMMU_OPTION REQUEST(0x87)
#define IOMMU_IOAS_MAP_FILE REQUEST(0x8F)
#define IOMMU_IOAS_CHANGE_PROCESS REQUEST(0x92)

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct attach { uint32_t argsz, flags, pt_id; };
struct detach { uint32_t argsz, flags; };
struct destroy { uint32_t size, id; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct ioas_ranges { uint32_t size, ioas_id, num_iovas, reserved; uint64_t allowed_iovas, out_iova_alignment; };
struct map_file { uint32_t size, flags, ioas_id; int32_t fd; uint64_t start, length, iova; };
struct ioas_unmap { uint32_t size, ioas_id; uint64_t iova, length; };
struct option { uint32_t size, option_id; uint16_t op, reserved; uint32_t object_id; uint64_t val64; };
struct change_process { uint32_t size, reserved; };
_Static_assert(sizeof(struct bind) == 16 && sizeof(struct attach) == 12 && sizeof(struct ioas_alloc) == 12, "the kernel's sizes");
_Static_assert(sizeof(struct ioas_ranges) == 32 && sizeof(struct map_file) == 40 && sizeof(struct ioas_unmap) == 24, "the kernel's sizes");
_Static_assert(sizeof(struct option) == 24, "the kernel's sizes");

static int set(int fd, unsigned long request, void *argument) {
    int r = ioctl(fd, request, argument);
    return r < 0 ? -errno : r > 0 ? -EIO : 0;
}

int cl_vfio_bind(int device, int iommufd, uint32_t *id) {
    struct bind call = { .argsz = sizeof call, .iommufd = iommufd };
    int r = set(device, VFIO_BIND, &call);
    *id = call.out_devid;
    return r;
}

int cl_vfio_attach(int device, uint32_t *table) {
    struct attach call = { .argsz = sizeof call, .pt_id = *table };
    int r = set(device, VFIO_ATTACH, &call);
    if (!r) *table = call.pt_id;
    return r;
}

int cl_vfio_detach(int device) {
    struct detach call = { .argsz = sizeof call };
    return set(device, VFIO_DETACH, &call);
}

int cl_iommu_destroy(int iommufd, uint32_t id) {
    struct destroy call = { .size = sizeof call, .id = id };
    return set(iommufd, IOMMU_DESTROY, &call);
}

int cl_iommu_ioas_alloc(int iommufd, uint32_t *id) {
    struct ioas_alloc call = { .size = sizeof call };
    int r = set(iommufd, IOMMU_IOAS_ALLOC, &call);
    *id = call.out_ioas_id;
    return r;
}

int cl_iommu_ioas_ranges(int iommufd, uint32_t ioas, struct cl_range *ranges, unsigned room, unsigned *count, uint64_t *alignment) {
    struct ioas_ranges call = { .size = sizeof call, .ioas_id = ioas, .num_iovas = room, .allowed_iovas = (uint64_t)(uintptr_t)ranges };
    int r = set(iommufd, IOMMU_IOAS_IOVA_RANGES, &call);
    *count = r ? 0 : call.num_iovas;
    *alignment = call.out_iova_alignment;
    return r;
}

int cl_iommu_map_file(int iommufd, uint32_t ioas, uint32_t flags, int file, uint64_t start, uint64_t length, uint64_t iova) {
    struct map_file call = {
        .size = sizeof call, .flags = flags | CL_IOMMU_MAP_FIXED, .ioas_id = ioas, .fd = file, .start = start, .length = length, .iova = iova,
    };
    return set(iommufd, IOMMU_IOAS_MAP_FILE, &call);
}

int cl_iommu_unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *unmapped) {
    struct ioas_unmap call = { .size = sizeof call, .ioas_id = ioas, .iova = iova, .length = length };
    int r = set(iommufd, IOMMU_IOAS_UNMAP, &call);
    *unmapped = r ? 0 : call.length;
    return r;
}

int cl_iommu_change_process(int iommufd) {
    struct change_process call = { .size = sizeof call };
    return set(iommufd, IOMMU_IOAS_CHANGE_PROCESS, &call);
}

int cl_iommu_set_option(int iommufd, uint32_t option, uint32_t object, uint64_t value) {
    struct option call = { .size = sizeof call, .option_id = option, .object_id = object, .val64 = value };
    return set(iommufd, IOMMU_OPTION, &call);
}
