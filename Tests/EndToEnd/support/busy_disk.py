"""The guest with a busy disk (guest/disk): a machine with it, and its account, read from its memory while it runs."""
import mmap
import os

from . import processes, programs
from .machine import Machine
from .processes import wait_until

BASE, SIZE = 0x20000, 0x2000
MAGIC = 0x314B444E4F544142
BUCKETS, BUCKETS_AT, ANSWERED_AT = 1024, 0x60, 0x1060


class BusyDisk:
    """A machine whose guest always has `depth` requests of `blocks` times 4 KiB under way, in a file of its own, as large as it takes."""

    def __init__(self, supervisor, name="web1", depth=1, blocks=1, memory="32MiB", **options):
        self.depth, self.path = depth, supervisor.disks / f"{name}.raw"
        self.path.write_bytes(b"")
        os.truncate(self.path, depth * 64 * blocks * 4096)
        self.machine = Machine(
            supervisor, name, vcpus=1, memory=memory, cmdline=f"depth={depth} blocks={blocks}", kernel=programs.OUT / "guest/disk.elf", **options)
        self.machine.spec["devices"] = [{"disk": {"path": str(self.path)}}]

    def __enter__(self):
        return self.run()

    def __exit__(self, *_):
        self.close()
        self.machine.supervisor.baton("stop", self.machine.name, "--force")

    def run(self):
        machine = self.machine
        done = machine.supervisor.baton("run", machine.write())
        assert done.code == 0, done
        with open(processes.descriptor_path(machine.pid, "/memfd:guest-ram"), "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, offset=BASE)
        view = memoryview(self._map)
        self._wide, self._narrow = view.cast("Q"), view.cast("I")
        wait_until(lambda: self._wide[0] == MAGIC or self.damage, self.describe)
        self.wait_progress()
        return self

    @property
    def requests(self):
        return self._wide[0x28 // 8]

    @property
    def compared(self):
        return self._wide[0x30 // 8]

    @property
    def damage(self):
        return self._wide[0x40 // 8]

    @property
    def longest(self):
        """Of the requests that count, what the longest took, in nanoseconds."""
        return self._nanoseconds(self._wide[0x38 // 8])

    @property
    def answered(self):
        """How many requests were answered, of each that is in flight."""
        return list(self._wide[ANSWERED_AT // 8:ANSWERED_AT // 8 + self.depth])

    def describe(self):
        where, expected, found = self._wide[0x48 // 8:0x60 // 8]
        return (f"requests {self.requests}, answered {self.answered}, compared {self.compared}, "
                f"damage {self.damage} at {where} expected {expected:#x} found {found:#x}\n{self.machine.console}")

    def wait_progress(self, each=2):
        """Waits until so many of each of the requests in flight were answered: none was lost."""
        before = self.answered
        wait_until(lambda: all(now >= then + each for now, then in zip(self.answered, before)) or self.damage, self.describe)
        assert not self.damage, self.describe()

    def reset(self):
        """What requests take counts from here, of those submitted from here on."""
        wanted = (self._narrow[0x14 // 4] + 1) & 0xFFFFFFFF
        self._narrow[0x14 // 4] = wanted
        wait_until(lambda: self._narrow[0x18 // 4] == wanted or self.damage, self.describe)

    def percentile(self, percent):
        """What that many of a hundred requests took at most, in nanoseconds, to a sixteenth; None if there was none."""
        counts = list(self._narrow[BUCKETS_AT // 4:BUCKETS_AT // 4 + BUCKETS])
        wanted, seen = sum(counts) * percent / 100, 0
        for number, count in enumerate(counts):
            seen += count
            if count and seen >= wanted:
                return min(self._nanoseconds((17 + number % 16) * 2 ** (number // 16 - 4)), self.longest)
        return None

    def _nanoseconds(self, ticks):
        return round(ticks * 1e6 / self._wide[0x20 // 8])

    def assert_unharmed(self):
        compared = self.compared
        wait_until(lambda: self.compared > compared + 100 or self.damage, self.describe)
        self.wait_progress()
        assert "DAMAGE" not in self.machine.console, self.machine.console

    def close(self):
        for view in (self._wide, self._narrow):
            view.release()
        self._map.close()
