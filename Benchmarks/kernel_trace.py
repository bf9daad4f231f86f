"""When vCPUs of a supervisor's workers were in KVM_RUN, by the kernel's own tracepoints.

Everything is in a tracing instance of its own, which disturbs no other use of tracing and is removed at the end.
"""
import collections
import ctypes
import errno
import os
import re

KVM_RUN = 0xAE80
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
FSOPEN_CLOEXEC, FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC = 1, 6, 1
ENTER, LEAVE, EXIT = "syscalls/sys_enter_ioctl", "syscalls/sys_exit_ioctl", "kvm/kvm_userspace_exit"
CALL = re.compile(r"^.*-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (kvm_userspace_exit|sys_ioctl\((?:fd: \w+, cmd: )?|sys_ioctl ->)\s?(\w+)?", re.M)
LINE = re.compile(r"^.*-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+)", re.M)

# `entered`: KVM_RUN began; otherwise it ended. Time is CLOCK_MONOTONIC in ns, to the microsecond.
Event = collections.namedtuple("Event", "thread ns entered")


class Unavailable(Exception):
    """The kernel's tracing cannot be used here, and why."""


def _system_call(*arguments):
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _mount():
    """A tracefs mounted nowhere: it is gone with its descriptor."""
    context = _system_call(SYS_FSOPEN, b"tracefs", FSOPEN_CLOEXEC)
    try:
        _system_call(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _system_call(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


class KernelTrace:
    """`with KernelTrace() as trace:`; then `follow`, `clear`, and `events` as often as needed."""

    def __init__(self):
        self._wanted = ()
        self.name = f"instances/baton-bench-{os.getpid()}"
        try:
            self.mount = _mount()
        except OSError as error:
            raise Unavailable(f"tracefs: {error.strerror}") from None
        try:
            self._remove_stale()
            os.mkdir(self.name, dir_fd=self.mount)
        except OSError as error:
            os.close(self.mount)
            raise Unavailable(f"tracefs has no instances: {error.strerror}") from None
        try:
            self._write("trace_clock", "mono")
            self._write("buffer_size_kb", "2048")
            self.every_ioctl(False)
            self._write("options/event-fork", "1")
            self._write("tracing_on", "1")
        except OSError as error:
            self.close()
            raise Unavailable(f"{error.filename}: {error.strerror}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _remove_stale(self):
        """Instances of runs that were killed."""
        for name in os.listdir(f"/proc/self/fd/{self.mount}/instances"):
            owner = name.removeprefix("baton-bench-")
            if owner != name and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
                os.rmdir(f"instances/{name}", dir_fd=self.mount)

    def _write(self, name, text):
        descriptor = os.open(f"{self.name}/{name}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, dir_fd=self.mount)
        try:
            os.write(descriptor, text.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
        finally:
            os.close(descriptor)

    def follow(self, processes):
        """Records these processes, and what they start from now on."""
        self._enable(False)
        tasks = [task for process in processes for task in os.listdir(f"/proc/{process}/task")]
        self._write("set_event_pid", " ".join(tasks))
        self._enable(True)

    def every_ioctl(self, on):
        """What the next `follow` records: each ioctl and its end, for `calls`, or KVM_RUN alone, as at first."""
        self._enable(False)
        self._wanted = (ENTER, LEAVE, EXIT) if on else (ENTER, EXIT)
        self._write(f"events/{ENTER}/filter", "0" if on else f"cmd == {KVM_RUN:#x}")

    def _enable(self, on):
        for event in self._wanted:
            self._write(f"events/{event}/enable", "1" if on else "0")

    def clear(self):
        self._write("trace", "")

    def _text(self):
        with open(os.open(f"{self.name}/trace", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.mount)) as file:
            return file.read()

    def calls(self):
        """(thread, ns, what the kernel calls it, the ioctl's request or None) of all that was recorded since `clear`, oldest first."""
        found = []
        for thread, seconds, micros, name, word in CALL.findall(self._text()):
            command = int(word, 16) if name.startswith("sys_ioctl(") else None
            found.append((int(thread), int(seconds) * 10**9 + int(micros) * 1000, name, command))
        return sorted(found, key=lambda call: call[1])

    def events(self):
        """What was recorded since `clear`, oldest first."""
        text = self._text()
        events = [
            Event(int(thread), int(seconds) * 10**9 + int(micros) * 1000, not name.startswith("kvm"))
            for thread, seconds, micros, name in LINE.findall(text)
        ]
        return sorted(events, key=lambda event: event.ns)

    def close(self):
        try:
            self._enable(False)
        except OSError:
            pass
        for _ in range(10):
            try:
                os.rmdir(self.name, dir_fd=self.mount)
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    break
        os.close(self.mount)


def vcpu_threads(process, name=r"/vcpu(\d+)$"):
    """The vCPU threads of a process, a worker's unless they have other names: {number: thread}."""
    found = {}
    for task in os.listdir(f"/proc/{process}/task"):
        try:
            with open(f"/proc/{process}/task/{task}/comm") as file:
                match = re.search(name, file.read().strip())
        except OSError:
            continue
        if match:
            found[int(match[1])] = int(task)
    return found


def stops(events, outgoing, incoming, ordered_ns):
    """Per vCPU, when it left its last KVM_RUN in the outgoing worker and began its first in the incoming one.

    `outgoing`, `incoming`: threads by vCPU; the same for a stop in place. `ordered_ns`: when the stop was ordered. Returns
    {vcpu: (left_ns, last_ns, entered_ns)}: out of the KVM_RUN in which the guest was stopped, out of the last one that only completed
    what was half done, into the first one afterwards.
    """
    found = {}
    for vcpu, thread in outgoing.items():
        after = [event for event in events if event.ns >= ordered_ns - 2000]
        exits = [event.ns for event in after if event.thread == thread and not event.entered]
        if thread == incoming.get(vcpu):
            # In place: the stop is the longest time between two KVM_RUNs.
            both = [event for event in after if event.thread == thread]
            pairs = [(b.ns - a.ns, a.ns, b.ns) for a, b in zip(both, both[1:]) if not a.entered and b.entered]
            if pairs:
                _, last, entered = max(pairs)
                found[vcpu] = (min(exits[0], last), last, entered)
            continue
        enters = [event.ns for event in after if event.thread == incoming.get(vcpu) and event.entered]
        if exits and enters:
            found[vcpu] = (exits[0], exits[-1], enters[0])
    return found
