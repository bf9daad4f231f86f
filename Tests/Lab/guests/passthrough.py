"""The guest that has `edu` devices, and when the host took interrupts of passed-through devices."""
import ctypes
import mmap
import pathlib
import re
import time

from support import programs
from support.processes import wait_until

from .controlled import ControlledMachine
from .passed import PCI

TRACING = pathlib.Path("/sys/kernel/tracing")
EDU, OTHER_EDU = "0000:00:06.0", "0000:00:07.0"
EDU_GUEST = programs.OUT / "guest/edu.elf"
LINE = re.compile(r"edu (\d+) rounds (\d+) copies (\d+) interrupts (\d+) spurious longest (\d+) ms")


def raise_line(address):
    """Has an `edu` assert its interrupt line for good, with nobody there to take it."""
    device = PCI / "devices" / address
    with open(device / "config", "r+b", buffering=0) as configuration:
        configuration.seek(4)
        configuration.write(b"\x06\x00")  # memory, DMA; INTx
    with open(device / "resource0", "r+b", buffering=0) as registers:
        with mmap.mmap(registers.fileno(), 4096) as mapped:
            word = ctypes.c_uint32.from_buffer(mapped, 0x60)
            word.value = 1
            del word


class EventTrace:
    """When the kernel came past a tracepoint: CLOCK_MONOTONIC, nanoseconds."""

    def __init__(self, event, condition):
        self.event, self.condition = TRACING / "events" / event, condition

    def __enter__(self):
        (TRACING / "trace_clock").write_text("mono")
        (self.event / "filter").write_text(self.condition)
        (self.event / "enable").write_text("1")
        (TRACING / "trace").write_text("")
        (TRACING / "tracing_on").write_text("1")
        return self

    def __exit__(self, *_):
        (self.event / "enable").write_text("0")

    def times(self):
        return [int(float(found) * 1e9) for found in re.findall(r"^[^#].* (\d+\.\d{6}): ", (TRACING / "trace").read_text(), re.M)]


def interrupts():
    """When the host took interrupts of passed-through devices."""
    return EventTrace("irq/irq_handler_entry", 'name ~ "vfio-*"')


def routings():
    """When somebody told KVM where interrupts lead (KVM_SET_GSI_ROUTING)."""
    return EventTrace("syscalls/sys_enter_ioctl", "cmd == 0x4008ae6a")


def step(record, name, end=True):
    """When a step of a handover ended or began, CLOCK_MONOTONIC."""
    offset = time.time_ns() - time.monotonic_ns()
    found = next(step for step in record["steps"] if step["phase"] == name)
    return record["startedAtNanoseconds"] - offset + found["endNanoseconds" if end else "beginNanoseconds"]


class EduMachine(ControlledMachine):
    """A machine whose guest lets `edu` copy, and says what came of it.

    `others`: back ends of further devices, of which there is one. `peers`: the first has the second compute.
    """

    def __init__(self, supervisor, backend, irq="msi", image=None, budget="5s", memory="64MiB", others=(), peers=False, **options):
        super().__init__(supervisor, f"edu-{backend}-{irq}", image, 1, memory, "", budget, kernel=EDU_GUEST, **options)
        backends = [backend, *others]
        self.copies_per_round = 2 * len(backends) + (2 if peers else 0)
        self.spec["boot"]["cmdline"] = f"irq={irq} peers={int(peers)}"
        self.spec["devices"] = [{"vfio": {"address": address, "backend": chosen}} for address, chosen in zip((EDU, OTHER_EDU), backends)]

    def run(self):
        done = self.supervisor.baton("run", self.write())
        assert done.code == 0, f"{done}\n{self.supervisor.log[-3000:]}"
        self.wait_rounds(1)
        return self

    @property
    def account(self):
        """Of the last line: rounds, copies, interrupts, spurious ones, the longest copy in ms."""
        console = self.console
        assert "DAMAGE" not in console, f"{console[-1000:]}\n{self.worker_log[-3000:]}"
        found = LINE.findall(console)
        return tuple(map(int, found[-1])) if found else (0, 0, 0, 0, 0)

    @property
    def boots(self):
        """How often the guest has started."""
        return self.console.count("edu ready")

    @property
    def worker_log(self):
        path = self.supervisor.run_directory / "machines" / self.name / "worker.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_rounds(self, more, seconds=30):
        """Waits until the guest has made that many rounds more, and returns its account."""
        aim = self.account[0] + more
        wait_until(lambda: self.account[0] >= aim, lambda: f"round {aim}: {self.console[-500:]}\n{self.worker_log[-3000:]}\n{self.supervisor.log[-2000:]}", seconds, 0.05)
        return self.account

    def assert_unharmed(self, state="running", boots=1):
        """It goes on: data right, as many interrupts as copies, none without a reason, in one worker."""
        rounds, copies, interrupts, spurious, _ = self.wait_rounds(3)
        assert copies == interrupts == self.copies_per_round * rounds
        assert spurious == 0, self.account
        assert self.boots == boots
        assert self.state == state, self.show()
        assert self.wait_one_worker() == self.pid

    def wait_booted(self, boots):
        """Waits for the guest's start number `boots`, and its first rounds."""
        wait_until(lambda: self.boots == boots, lambda: f"start {boots}: {self.console[-500:]}\n{self.worker_log[-3000:]}\n{self.supervisor.log[-2000:]}")
        wait_until(lambda: LINE.search(self.console.rpartition("edu ready")[2]), lambda: f"rounds: {self.console[-500:]}\n{self.worker_log[-3000:]}")

    def hand_over(self, image):
        """One upgrade that must commit; returns its record."""
        done = self.upgrade(image)
        assert done.code == 0, f"{done}\n{self.worker_log[-3000:]}\n{self.supervisor.log[-3000:]}"
        record = done.json
        assert record["outcome"] == "committed", record
        return record
