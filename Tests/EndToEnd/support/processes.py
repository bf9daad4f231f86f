"""What /proc says of a process, and waiting with a deadline."""
import collections
import ctypes
import os
import re
import signal
import time

# Nothing here is expected to take this long; a busy machine may need it.
PATIENCE = 30.0


class Expired(AssertionError):
    """Something did not come about in time."""


def wait_until(holds, what, seconds=PATIENCE, pause=0.01):
    """Polls `holds` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Expired(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)


def adopt_orphans():
    """Processes that outlive their parents become this process's children, so that tests see and end them."""
    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


Stat = collections.namedtuple("Stat", "pid name state parent")


def stat(pid):
    """Name, state and parent of a process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return Stat(int(pid), name, rest[0], int(rest[1]))


def descendants(root):
    """All processes below `root`, zombies included."""
    children = collections.defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found = stat(entry)
            if found:
                children[found.parent].append(found)
    below, queue = [], [root]
    while queue:
        for child in children[queue.pop()]:
            below.append(child)
            queue.append(child.pid)
    return below


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descriptors(pid):
    """The open descriptors of a process by name: {name: how many}. Numbers inside names that differ each time are left out."""
    names = collections.Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
        names[re.sub(r"(socket|pipe):\[\d+\]", r"\1", name)] += 1
    return names


def descriptor_path(pid, prefix):
    """The /proc path of the descriptor whose name begins with `prefix`; None when there is none."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            if os.readlink(path).startswith(prefix):
                return path
        except FileNotFoundError:
            continue
    return None


def status(pid, task=None):
    """The fields of /proc/PID/status, or of one thread's."""
    path = f"/proc/{pid}/status" if task is None else f"/proc/{pid}/task/{task}/status"
    with open(path) as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def threads(pid):
    return [int(task) for task in os.listdir(f"/proc/{pid}/task")]


def waited_for_cpu(pid, name):
    """The longest that any thread whose name has this in it was ready and had no CPU since it began, in ns."""
    longest = 0
    for task in threads(pid):
        with open(f"/proc/{pid}/task/{task}/comm") as comm, open(f"/proc/{pid}/task/{task}/schedstat") as schedstat:
            if name in comm.read():
                longest = max(longest, int(schedstat.read().split()[1]))
    return longest


def resident_anonymous(pid):
    """RssAnon in bytes."""
    return int(status(pid)["RssAnon"].split()[0]) * 1024


def is_held(pid):
    """Whether a thread of the process is in the sleep of a failpoint: nanosleep or clock_nanosleep."""
    for task in threads(pid) if is_alive(pid) else []:
        try:
            with open(f"/proc/{pid}/task/{task}/syscall") as file:
                if file.read().split()[0] in ("35", "230"):
                    return True
        except (FileNotFoundError, ProcessLookupError):
            pass
    return False


def is_alive(pid):
    found = stat(pid)
    return found is not None and found.state != "Z"


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def stop(pid):
    """SIGSTOP, until it has reached every thread: the one that is woken next must not go on meanwhile."""
    kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(status(pid, task)["State"].startswith("T") for task in os.listdir(f"/proc/{pid}/task")), f"process {pid} is stopped")


def reap(pids):
    """Takes in those of the processes that have become children of this one and have ended."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
