"""The guest's clocks against the host's: the page of guest/linux/programs/check-clock.c, read from the guest's memory while it runs."""
import dataclasses
import mmap
import os
import time

from support import processes

MAGIC = 0x4B434F4C43544142
MAGIC_AT, SEQUENCE, TSC, MONOTONIC, REALTIME, RAW, GAP, GAP_END, WENT_BACK, TICKS, LATE, RESET = range(12)
# A better look at the clocks than this, in nanoseconds, is worth looking for as long again, and so many times at most.
SAME_NS, MOST_LOOKING = 20_000, 15


@dataclasses.dataclass(frozen=True)
class Reading:
    """By how much the host's clocks are ahead of the guest's. One reading says nothing; the difference of two says what the guest lost."""

    host_ns: int
    monotonic_ns: int
    realtime_ns: int
    samples: int

    def error_us(self, since):
        """What the guest's clocks lost (positive) or gained since an earlier reading: the larger of the two, in microseconds."""
        errors = [(self.monotonic_ns - since.monotonic_ns) / 1000, (self.realtime_ns - since.realtime_ns) / 1000]
        return max(errors, key=abs)


class Page:
    """`pid` holds the guest's memory as a memfd, `address` is where the page lies in it."""

    def __init__(self, pid, address, memory="/memfd:guest-ram"):
        path = processes.descriptor_path(pid, memory)
        assert path, f"process {pid} holds no guest memory: {dict(processes.descriptors(pid))}"
        self.address = address
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(file, 4096, offset=address)
        finally:
            os.close(file)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        assert self._words[MAGIC_AT] == MAGIC, f"no clocks at {address:#x} of the guest's memory: {self._words[MAGIC_AT]:#x}"

    def close(self):
        self._words.release()
        self._bytes.release()
        self._map.close()

    @property
    def sequence(self):
        return self._words[SEQUENCE]

    @property
    def gap_ms(self):
        """The largest time between two readings since the last reset."""
        return self._words[GAP] / 1e6

    @property
    def late_ms(self):
        return self._words[LATE] / 1e6

    def reset(self, seconds=30):
        self._words[RESET] = 1
        processes.wait_until(lambda: self._words[RESET] == 0, "the guest resets its largest gap", seconds)

    def forget_gap(self):
        """The largest gap is looked for anew, at once: one that lasts counts from its beginning, unlike with `reset`."""
        self._words[GAP] = 0

    def wait_progress(self, seconds=30, readings=20):
        before = self.sequence
        processes.wait_until(lambda: self.sequence > before + 2 * readings, "the guest reads its clocks", seconds)

    def read(self, seconds=2.0):
        """Watches the readings until looking for as long again makes no difference. Each is older than the look at it, never younger: the least
        difference is the best, and where processors are scarce it may be a while before one is looked at in time."""
        best_monotonic = best_realtime = None
        samples, seen, ends = 0, None, time.monotonic() + seconds
        latest = ends + MOST_LOOKING * seconds
        words = self._words
        while time.monotonic() < ends or samples < 5:
            before = words[SEQUENCE]
            monotonic, realtime = words[MONOTONIC], words[REALTIME]
            if before == seen or before % 2 or words[SEQUENCE] != before:
                if time.monotonic() > ends + 30:
                    raise AssertionError("the guest does not read its clocks")
                continue
            raw, wall = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.time_ns()
            seen, samples = before, samples + 1
            now = time.monotonic()
            if best_monotonic is not None and now < latest and max(best_monotonic - (raw - monotonic), best_realtime - (wall - realtime)) > SAME_NS:
                ends = max(ends, now + seconds)
            best_monotonic = min(raw - monotonic, best_monotonic if best_monotonic is not None else raw)
            best_realtime = min(wall - realtime, best_realtime if best_realtime is not None else wall)
        return Reading(time.monotonic_ns(), best_monotonic, best_realtime, samples)
