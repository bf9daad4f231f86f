import ConfinementAttempts
import Glibc
import LinuxSystem
import Testing
import VMM

@Suite struct `A confined worker` {
    @Test(arguments: [
        ATTEMPT_SOCKET, ATTEMPT_SOCKETPAIR, ATTEMPT_CONNECT, ATTEMPT_OPENAT2, ATTEMPT_EXECVE, ATTEMPT_EXECVEAT, ATTEMPT_FORK, ATTEMPT_PTRACE,
        ATTEMPT_PIDFD_OPEN, ATTEMPT_KILL, ATTEMPT_TGKILL_OTHER, ATTEMPT_EXECUTABLE_MAPPING, ATTEMPT_EXECUTABLE_PROTECTION, ATTEMPT_OTHER_IOCTL,
        ATTEMPT_TAP_IOCTL, ATTEMPT_DEVICE_RESET, ATTEMPT_DEVICE_DETACH, ATTEMPT_SET_OWNER, ATTEMPT_SET_LIMIT, ATTEMPT_MEMFD, ATTEMPT_STAT_PATH,
    ])
    func `is killed for what it does not need`(_ what: ConfinementAttempts.attempt) {
        #expect(attempt(what) == -SIGSYS)
    }

    @Test func `cannot open a path, and lives on`() {
        #expect(attempt(ATTEMPT_OPEN) == EACCES)
    }

    @Test func `is confined in the threads it already had`() {
        #expect(attempt(ATTEMPT_OTHER_THREAD) == -SIGSYS)
    }

    @Test func `does its everyday work`() {
        #expect(attempt(ATTEMPT_EVERYDAY) == 0, "the line that failed")
    }

    @Test(.enabled(if: open_under_landlock() != -1000, "this kernel has no Landlock"))
    func `cannot open a path under Landlock alone`() {
        #expect(open_under_landlock() == EACCES)
    }

    @Test func `is what the one call makes of a process`() async {
        await #expect(processExitsWith: .signal(SIGSYS)) {
            _ = try Confinement.confine()
            _ = try UnixSocket.sequencedPair()
        }
    }
}
