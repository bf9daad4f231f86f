#ifndef CLINUX_KVM_H
#define CLINUX_KVM_H
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

// Newer than the headers this is built against.
#define CL_KVM_CAP_USER_MEMORY2 231
struct cl_kvm_pre_fault_memory { uint64_t gpa, size, flags, padding[5]; };
static const unsigned long CL_KVM_PRE_FAULT_MEMORY = _IOWR(KVMIO, 0xd5, struct cl_kvm_pre_fault_memory);
#define CL_KVM_CAP_X86_APIC_BUS_CYCLES_NS 237

// Request numbers as constants; the kernel's are macros with casts in them.
#define CL_KVM_REQUEST(name) static const unsigned long CL_##name = name
CL_KVM_REQUEST(KVM_GET_API_VERSION);
CL_KVM_REQUEST(KVM_CREATE_VM);
CL_KVM_REQUEST(KVM_CHECK_EXTENSION);
CL_KVM_REQUEST(KVM_GET_VCPU_MMAP_SIZE);
CL_KVM_REQUEST(KVM_GET_MSR_INDEX_LIST);
CL_KVM_REQUEST(KVM_GET_MSR_FEATURE_INDEX_LIST);
CL_KVM_REQUEST(KVM_GET_SUPPORTED_CPUID);
CL_KVM_REQUEST(KVM_CREATE_VCPU);
CL_KVM_REQUEST(KVM_SET_USER_MEMORY_REGION);
CL_KVM_REQUEST(KVM_SET_TSS_ADDR);
CL_KVM_REQUEST(KVM_SET_IDENTITY_MAP_ADDR);
CL_KVM_REQUEST(KVM_CREATE_IRQCHIP);
CL_KVM_REQUEST(KVM_GET_IRQCHIP);
CL_KVM_REQUEST(KVM_SET_IRQCHIP);
CL_KVM_REQUEST(KVM_IRQ_LINE);
CL_KVM_REQUEST(KVM_SET_GSI_ROUTING);
CL_KVM_REQUEST(KVM_IRQFD);
CL_KVM_REQUEST(KVM_IOEVENTFD);
CL_KVM_REQUEST(KVM_SIGNAL_MSI);
CL_KVM_REQUEST(KVM_GET_CLOCK);
CL_KVM_REQUEST(KVM_SET_CLOCK);
CL_KVM_REQUEST(KVM_ENABLE_CAP);
CL_KVM_REQUEST(KVM_SET_BOOT_CPU_ID);
CL_KVM_REQUEST(KVM_RUN);
CL_KVM_REQUEST(KVM_SET_SIGNAL_MASK);
CL_KVM_REQUEST(KVM_GET_REGS);
CL_KVM_REQUEST(KVM_SET_REGS);
CL_KVM_REQUEST(KVM_GET_SREGS);
CL_KVM_REQUEST(KVM_SET_SREGS);
CL_KVM_REQUEST(KVM_GET_SREGS2);
CL_KVM_REQUEST(KVM_SET_SREGS2);
CL_KVM_REQUEST(KVM_GET_MSRS);
CL_KVM_REQUEST(KVM_SET_MSRS);
CL_KVM_REQUEST(KVM_GET_LAPIC);
CL_KVM_REQUEST(KVM_SET_LAPIC);
CL_KVM_REQUEST(KVM_SET_CPUID2);
CL_KVM_REQUEST(KVM_GET_CPUID2);
CL_KVM_REQUEST(KVM_GET_MP_STATE);
CL_KVM_REQUEST(KVM_SET_MP_STATE);
CL_KVM_REQUEST(KVM_GET_VCPU_EVENTS);
CL_KVM_REQUEST(KVM_SET_VCPU_EVENTS);
CL_KVM_REQUEST(KVM_GET_DEBUGREGS);
CL_KVM_REQUEST(KVM_SET_DEBUGREGS);
CL_KVM_REQUEST(KVM_GET_XSAVE);
CL_KVM_REQUEST(KVM_GET_XSAVE2);
CL_KVM_REQUEST(KVM_SET_XSAVE);
CL_KVM_REQUEST(KVM_GET_XCRS);
CL_KVM_REQUEST(KVM_SET_XCRS);
CL_KVM_REQUEST(KVM_GET_NESTED_STATE);
CL_KVM_REQUEST(KVM_SET_NESTED_STATE);
CL_KVM_REQUEST(KVM_GET_TSC_KHZ);
CL_KVM_REQUEST(KVM_SET_TSC_KHZ);
CL_KVM_REQUEST(KVM_KVMCLOCK_CTRL);
CL_KVM_REQUEST(KVM_TRANSLATE);
CL_KVM_REQUEST(KVM_X86_SETUP_MCE);
CL_KVM_REQUEST(KVM_HAS_DEVICE_ATTR);
CL_KVM_REQUEST(KVM_GET_DEVICE_ATTR);
CL_KVM_REQUEST(KVM_SET_DEVICE_ATTR);
CL_KVM_REQUEST(KVM_CREATE_DEVICE);
#undef CL_KVM_REQUEST

// An ioctl whose argument is a value, or points at a structure. The ioctl's result, or -errno.
int cl_kvm_call(int fd, unsigned long request, unsigned long argument);
int cl_kvm_call_with(int fd, unsigned long request, void *argument);

// A vCPU attribute of 64 bits (KVM_{GET,SET}_DEVICE_ATTR). -ENXIO when the kernel has none such.
int cl_kvm_get_attribute(int vcpu, uint32_t group, uint64_t attribute, uint64_t *value);
int cl_kvm_set_attribute(int vcpu, uint32_t group, uint64_t attribute, uint64_t value);

// The VM's KVM-VFIO device (KVM_DEV_TYPE_VFIO); a VM has one. Its descriptor, or -errno.
int cl_kvm_create_vfio(int vm);
// Tells it of a VFIO group or device (KVM_DEV_VFIO_FILE_ADD); it keeps a reference until it is closed. -EEXIST: it knows already.
int cl_kvm_vfio_add(int device, int file);

// KVM_RUN with a signal already pending: no guest instruction runs, expired LAPIC timers move to the IRR. 0 when it came back
// for the signal, 1 when it returned an exit to be handled, or -errno. Calls for the thread that runs this vCPU.
int cl_kvm_run_with_pending_signal(int vcpu);

// The last exit, flattened out of struct kvm_run's unions.
struct cl_kvm_exit_detail {
    uint32_t reason;                // KVM_EXIT_*
    uint32_t size;                  // bytes per access: IO, MMIO
    uint32_t count;                 // IO: repetitions
    uint32_t is_write;              // IO, MMIO
    uint64_t address;               // IO: port. MMIO: guest-physical address. Otherwise the exit's first detail
    uint64_t data;                  // MMIO write: value. Otherwise the exit's second detail
    uint64_t offset;                // IO: where the data lie in the mapping
};
void cl_kvm_decode_exit(const void *run, struct cl_kvm_exit_detail *out);
// What KVM told with its last KVM_EXIT_INTERNAL_ERROR: how many words, of at most 16.
uint32_t cl_kvm_internal_error_data(const void *run, uint64_t data[16]);
void cl_kvm_set_immediate_exit(void *run, int on);
int cl_kvm_immediate_exit(void *run);
uint64_t cl_kvm_load(const void *run, uint64_t offset, uint32_t size);
void cl_kvm_store(void *run, uint64_t offset, uint32_t size, uint64_t value);
uint64_t cl_kvm_mmio_offset(void);
#endif
