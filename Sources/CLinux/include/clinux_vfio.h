#ifndef CLINUX_VFIO_H
#define CLINUX_VFIO_H
#include <stddef.h>
#include <stdint.h>

// VFIO (linux/vfio.h, Documentation/driver-api/vfio.rst) and iommufd (Documentation/userspace-api/iommufd.rst). A positive result of an
// ioctl that sets something is a failure like any other and comes back as -EIO.

// First and last address of a range, both in it.
struct cl_range { uint64_t first, last; };

// Containers.
int cl_vfio_api_version(int container);
int cl_vfio_check_extension(int container, unsigned extension);  // its value, 0 when there is none such
int cl_vfio_set_iommu(int container, unsigned type);
// Page sizes as a bitmap, how many mappings may still be made (UINT32_MAX: not said), and up to `room` usable ranges, their number in *count.
struct cl_vfio_iommu { uint64_t page_sizes; uint32_t mappings_left; };
int cl_vfio_iommu_info(int container, struct cl_vfio_iommu *info, struct cl_range *ranges, unsigned room, unsigned *count);
#define CL_VFIO_DMA_READ 1u
#define CL_VFIO_DMA_WRITE 2u
#define CL_VFIO_DMA_VADDR 4u                                // MAP: a new address for what is mapped
int cl_vfio_map(int container, uint32_t flags, uint64_t address, uint64_t iova, uint64_t size);
#define CL_VFIO_UNMAP_ALL 2u
#define CL_VFIO_UNMAP_VADDR 4u
int cl_vfio_unmap(int container, uint32_t flags, uint64_t iova, uint64_t size, uint64_t *unmapped);

// Groups.
int cl_vfio_group_status(int group, uint32_t *flags);       // 1 viable, 2 in a container
int cl_vfio_group_set_container(int group, int container);
int cl_vfio_group_unset_container(int group);
int cl_vfio_group_device(int group, const char *name);      // a descriptor

// Devices.
struct cl_vfio_device { uint32_t flags, regions, interrupts; };
int cl_vfio_device_info(int device, struct cl_vfio_device *info);
struct cl_vfio_region { uint32_t flags; uint32_t msix_mappable; uint64_t size, offset; };
// Up to `room` areas that can be mapped if not all of it can, {offset, last byte}; their number in *count.
int cl_vfio_region_info(int device, unsigned index, struct cl_vfio_region *info, struct cl_range *areas, unsigned room, unsigned *count);
int cl_vfio_interrupt_info(int device, unsigned index, uint32_t *flags, uint32_t *count);
// VFIO_DEVICE_SET_IRQS; `events` are `count` eventfds or -1 with CL_VFIO_DATA_EVENTFD, else not looked at.
#define CL_VFIO_DATA_NONE 1u
#define CL_VFIO_DATA_EVENTFD 4u
#define CL_VFIO_MASK 8u
#define CL_VFIO_UNMASK 16u
#define CL_VFIO_TRIGGER 32u
#define CL_VFIO_VECTORS 2048                                // what MSI-X has at most
int cl_vfio_set_interrupts(int device, uint32_t flags, unsigned index, unsigned start, unsigned count, const int32_t *events);
int cl_vfio_reset(int device);
int64_t cl_vfio_write(int device, const void *buffer, size_t length, int64_t offset);  // pwrite
// Devices opened by themselves, not through a group.
int cl_vfio_bind(int device, int iommufd, uint32_t *id);
int cl_vfio_attach(int device, uint32_t *table);            // in: an IOAS or HWPT; out: the HWPT
int cl_vfio_detach(int device);

// iommufd.
int cl_iommu_destroy(int iommufd, uint32_t id);
int cl_iommu_ioas_alloc(int iommufd, uint32_t *id);
int cl_iommu_ioas_ranges(int iommufd, uint32_t ioas, struct cl_range *ranges, unsigned room, unsigned *count, uint64_t *alignment);
#define CL_IOMMU_MAP_FIXED 1u
#define CL_IOMMU_MAP_WRITEABLE 2u
#define CL_IOMMU_MAP_READABLE 4u
// IOMMU_IOAS_MAP_FILE, Linux 6.13.
int cl_iommu_map_file(int iommufd, uint32_t ioas, uint32_t flags, int file, uint64_t start, uint64_t length, uint64_t iova);
int cl_iommu_unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *unmapped);
int cl_iommu_change_process(int iommufd);                   // IOMMU_IOAS_CHANGE_PROCESS, Linux 6.13; -ENOTTY before
int cl_iommu_set_option(int iommufd, uint32_t option, uint32_t object, uint64_t value);
#endif
