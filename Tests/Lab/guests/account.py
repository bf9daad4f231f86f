"""What can be learned of a machine that stands still, while it does: it is gone when the test has failed."""
import pathlib
import subprocess
import threading
import time

from support import processes

from . import programs


def _read(path):
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        return f"({error.strerror})"


def threads(pid):
    """Every thread of a process: its name, its state, where it waits."""
    lines = []
    for task in sorted(pathlib.Path(f"/proc/{pid}/task").glob("*")):
        state = _read(task / "stat").rpartition(")")[2].split()[:1]
        lines.append(f"{task.name} {_read(task / 'comm')} {state} {_read(task / 'syscall')}\n{_read(task / 'stack')}")
    return "\n".join(lines)


def _trace(directory, seconds=1):
    """What KVM and the scheduler do in a second, by tracepoints."""
    tracing = pathlib.Path("/sys/kernel/tracing")
    if not (tracing / "trace").exists():
        subprocess.run(["/usr/bin/mount", "-t", "tracefs", "tracefs", tracing], check=False)
    for event in ("kvm", "sched/sched_switch"):
        (tracing / "events" / event / "enable").write_text("1")
    time.sleep(seconds)
    (tracing / "tracing_on").write_text("0")
    (directory / "trace").write_text("\n".join((tracing / "trace").read_text(errors="replace").splitlines()[-50_000:]))


def give(name, pids):
    """Writes threads, checkpoints, guest memory (in the long form) and a trace to the suite's results."""
    directory = programs.RESULTS / "standstill" / name
    directory.mkdir(parents=True, exist_ok=True)
    for pid in pids:
        (directory / f"threads-{pid}").write_text(threads(pid))
        for kind in ("checkpoint", *(["guest-ram"] if programs.LONG else [])):
            if path := processes.descriptor_path(pid, f"/memfd:{kind}"):
                subprocess.run(["/bin/cp", "--sparse=always", path, directory / f"{kind}-{pid}"], check=False)
    try:
        _trace(directory)
    except OSError as error:
        (directory / "trace").write_text(f"{error}\n")


class Watch:
    """Gives an account when what it surrounds takes longer than a time."""

    def __init__(self, name, seconds, pids):
        """`pids`: gives the processes, when it is asked."""
        self._timer = threading.Timer(seconds, lambda: give(f"{name}-{int(time.monotonic())}", list(pids())))

    def __enter__(self):
        self._timer.start()

    def __exit__(self, *_):
        self._timer.cancel()
