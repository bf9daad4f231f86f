// Kernel interfaces as plain functions. Every function returns a value, or -errno; none touches the thread's errno for its caller.
#ifndef CLINUX_H
#define CLINUX_H
#include "clinux_confinement.h"
#include "clinux_descriptors.h"
#include "clinux_digest.h"
#include "clinux_io.h"
#include "clinux_disks.h"
#include "clinux_kvm.h"
#include "clinux_memory.h"
#include "clinux_processes.h"
#include "clinux_sockets.h"
#include "clinux_terminal.h"
#include "clinux_threads.h"
#include "clinux_vfio.h"
#endif
