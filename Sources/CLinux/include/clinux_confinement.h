#ifndef CLINUX_CONFINEMENT_H
#define CLINUX_CONFINEMENT_H

// From here on every thread of the process, those that run already included, may make only the system calls a worker needs on
// descriptors it has. Opening a path fails with EACCES (glibc looks at /proc when it gives memory back and goes on without it);
// clone3 fails with ENOSYS, so that clone, whose flags can be judged, is used for threads; anything else kills the process with SIGSYS.
// Needs no_new_privs.
int cl_confine_system_calls(void);

// The version of Landlock this kernel has, 0 for none.
int cl_landlock_version(void);
// From here on this thread and those it starts may reach nothing in any file system, connect to and bind no TCP port, and signal and
// connect to no process outside, as far as the kernel's Landlock knows these. What is open stays usable. Needs no_new_privs.
// Returns the version in force; -EOPNOTSUPP where there is no Landlock.
int cl_confine_paths(void);
#endif
