#ifndef CLINUX_PROCESSES_H
#define CLINUX_PROCESSES_H
#include <stddef.h>
#include <stdint.h>

#define CL_KEEP_ID (-1)
#define CL_SPAWN_LIMIT 8            // descriptors that a child can be given
struct cl_spawn {
    int executable;                 // descriptor executed with execveat(AT_EMPTY_PATH)
    char *const *arguments;         // NULL-terminated
    char *const *environment;       // NULL-terminated
    const int *descriptors;         // descriptors[i] becomes number i in the child; every other number is closed
    int descriptor_count;
    int64_t uid, gid;               // CL_KEEP_ID leaves them; otherwise supplementary groups are dropped too
    int64_t memlock;                // bytes of RLIMIT_MEMLOCK; -1 leaves the limit
    int no_new_privileges;
    int own_group;                  // setpgid, TIOCNOTTY: no terminal, and its signals do not reach it
    int keep_capabilities;          // 0 clears ambient and inheritable sets
};
// Sets numbers aside for what children are given. Before there are many descriptors: low numbers make it cheap to start a child. cl_spawn does it otherwise.
int cl_prepare_to_spawn(void);
// The child's pid, its pidfd in *pidfd. The child reports nothing: a failed exec ends it with status 127.
int64_t cl_spawn(const struct cl_spawn *request, int *pidfd);

int cl_pidfd_open(int pid);
int cl_pidfd_signal(int pidfd, int signal);
struct cl_exit { int pid; int code; int status; };          // code: CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3
int cl_wait_pidfd(int pidfd, int block, struct cl_exit *exit);  // 1 reaped, 0 still running, -ECHILD not ours
int cl_reap_any(int except, struct cl_exit *exit);          // any dead child but one, without waiting: 1, 0 none, -ECHILD
int cl_set_subreaper(void);
int cl_set_no_new_privileges(void);
int cl_set_limit_nofile(uint64_t count);
uint64_t cl_limit_nofile(void);
uint64_t cl_limit_memlock(void);
const char *cl_environment(const char *name);                // getenv
uint32_t cl_user_id(void);                                   // geteuid
int cl_process_id(void);                                    // getpid
void cl_return_large_blocks(void);                          // mallopt(3)
void cl_keep_freed_memory(size_t length);
void cl_exit_now(int status);                               // _exit
#endif
