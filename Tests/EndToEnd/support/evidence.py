"""What the guest saw: its evidence, read from its memory while it runs (docs/guest.md)."""
import fcntl
import hashlib
import mmap
import os
import struct
import time

from . import processes
from .processes import wait_until

BASE = 0x20000
RECORD = 0x400
MAGIC = 0x3142484E4F544142
RUNNING, PARKED, DEAD = 2, 3, 5
SEEK_DATA, SEEK_HOLE = 3, 4


class Ticker:
    """One record of a periodic event: a LAPIC timer or the PIT."""

    def __init__(self, evidence, address, name):
        self._read = lambda offset: evidence.u64(address + offset)
        self.name = name
        self.kind = evidence.u32(address)
        self.period_us = evidence.u32(address + 4)
        self.period, self.ticks, self.expected = (self._read(offset) for offset in (0x08, 0x10, 0x18))
        self.lost, self.lost_in_stall, self.lost_late, self.doubled = (self._read(offset) for offset in (0x20, 0x28, 0x30, 0x38))
        self.late_max = self._read(0x40)
        self.losses = self._read(0x68)

    @property
    def missing(self):
        """Ticks that did not come and are not in the accounts of losses either."""
        return self.expected - self.ticks - (self.lost + self.lost_in_stall + self.lost_late)

    def __str__(self):
        return (f"{self.name}: period {self.period_us} us, ticks {self.ticks} of {self.expected}, lost {self.lost}, "
                f"in stalls {self.lost_in_stall}, late {self.lost_late}, doubled {self.doubled}")


class Evidence:
    """The evidence of one guest. The memory is mapped once: it is the same for every worker of the machine."""

    def __init__(self, pid, memory="/memfd:guest-ram"):
        """`pid`: any worker of the machine. `memory`: what its RAM is called."""
        path = processes.descriptor_path(pid, memory)
        if path is None:
            raise AssertionError(f"worker {pid} holds no guest memory: {dict(processes.descriptors(pid))}")
        self.file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        about = os.fstat(self.file)
        self.size = about.st_size
        # Whole pages, whatever they are made of.
        self._map = mmap.mmap(self.file, max(BASE + 0x10000, about.st_blksize))
        self._whole = memoryview(self._map)
        self._bytes = self._whole[BASE:BASE + 0x10000]
        self._wide, self._narrow = self._bytes.cast("Q"), self._bytes.cast("I")
        self._missing = {}
        self._largest_ms = 0.0

    def close(self):
        for view in (self._wide, self._narrow, self._bytes, self._whole):
            view.release()
        self._map.close()
        os.close(self.file)

    # Reading. Each field is one aligned load, so that the guest cannot change half of it meanwhile.

    def u64(self, address):
        return self._wide[(address - BASE) // 8]

    def i64(self, address):
        return struct.unpack("<q", struct.pack("<Q", self.u64(address)))[0]

    def u32(self, address):
        return self._narrow[(address - BASE) // 4]

    def set_u64(self, address, value):
        """For the fields that docs/guest.md lets the host write."""
        self._wide[(address - BASE) // 8] = value

    def set_u32(self, address, value):
        self._narrow[(address - BASE) // 4] = value

    @staticmethod
    def vcpu(number):
        """The address of a vCPU's record."""
        return BASE + RECORD * (1 + number)

    @property
    def vcpus(self):
        return self.u32(BASE + 0x10)

    @property
    def state(self):
        return self.u32(BASE + 0x18)

    @property
    def tsc_khz(self):
        return self.u64(BASE + 0x20)

    @property
    def boot_tsc(self):
        """Changes with every boot."""
        return self.u64(BASE + 0x28)

    @property
    def reports(self):
        return self.u64(BASE + 0x40)

    @property
    def damage(self):
        return self.u64(BASE + 0x48)

    def beats(self):
        return [self.u64(self.vcpu(number)) for number in range(self.vcpus)]

    def passes(self):
        return [self.u64(self.vcpu(number) + 0x60) for number in range(self.vcpus)]

    def ipis_taken(self):
        """How many interrupts each vCPU has taken that others sent."""
        return [self.u64(self.vcpu(number) + 0x120) for number in range(self.vcpus)]

    def gap_ms(self):
        """The largest gap any vCPU saw, in milliseconds."""
        return max(self.u64(self.vcpu(number) + 0x10) for number in range(self.vcpus)) / self.tsc_khz

    def clock_difference_ns(self):
        """By how much kvmclock and TSC came to disagree since the last reset of the counters."""
        return max(self.u64(self.vcpu(number) + 0xA0) for number in range(self.vcpus))

    def clock_step_back_ns(self):
        return max(self.u64(self.vcpu(number) + 0xA8) for number in range(self.vcpus))

    def sample(self, number=0):
        """(guest TSC, kvmclock ns) taken at one moment by a vCPU."""
        record = self.vcpu(number)
        while True:
            before = self.u64(record + 0x80)
            values = self.u64(record + 0x88), self.u64(record + 0x90)
            if before % 2 == 0 and self.u64(record + 0x80) == before:
                return values

    def tickers(self):
        """Every ticker that is on."""
        timers = [Ticker(self, self.vcpu(number) + 0x180, f"timer of vCPU {number}") for number in range(self.vcpus)]
        return [ticker for ticker in [Ticker(self, BASE + 0x100, "PIT"), *timers] if ticker.kind]

    def describe(self):
        lines = [f"state {self.state}, damage {self.damage}, beats {self.beats()}, passes {self.passes()}, largest gap {self.gap_ms():.3f} ms"]
        lines += [str(ticker) for ticker in self.tickers()]
        for number in range(self.vcpus):
            record = self.vcpu(number)
            if self.u64(record + 0xE0):
                lines.append(
                    f"damage of vCPU {number}: code {self.u32(record + 0xE8)} where {self.u64(record + 0xF0):#x} "
                    f"expected {self.u64(record + 0xF8):#x} found {self.u64(record + 0x100):#x}")
        return "\n".join(lines)

    # Waiting and asking

    def wait_booted(self, other_than=None, seconds=processes.PATIENCE):
        """Waits until the guest runs; with `other_than`, until it was booted again since that boot_tsc."""

        def booted():
            found = self.u64(BASE) == MAGIC and self.boot_tsc != other_than
            assert not (found and self.state == DEAD), f"the guest has ended as it booted\n{self.describe()}"
            return found and self.state == RUNNING and all(self.beats() or [0])

        wait_until(booted, lambda: f"the guest boots: magic {self.u64(BASE):#x}, state {self.state}", seconds)
        return self

    def wait_progress(self, beats=100, seconds=processes.PATIENCE):
        """Waits until every vCPU has gone on by so many rounds."""
        before = self.beats()
        wait_until(
            lambda: all(now >= then + beats for now, then in zip(self.beats(), before)),
            lambda: f"every vCPU goes on; beats were {before}\n{self.describe()}", seconds)

    def stands_still(self, seconds=0.3):
        """Whether no vCPU goes on for that time."""
        before = self.beats()
        time.sleep(seconds)
        return self.beats() == before

    def reset_counters(self):
        """Largest gap, clock differences, losses, doubles and delays count from here."""
        wanted = (self.u32(BASE + 0x84) + 1) & 0xFFFFFFFF
        self._narrow[0x84 // 4] = wanted
        wait_until(
            lambda: all(self.u32(self.vcpu(number) + 0xD8) == wanted for number in range(self.vcpus)),
            lambda: f"every vCPU resets its counters\n{self.describe()}")
        self.reset_gaps()
        self._largest_ms = 0.0
        self._missing = {ticker.name: ticker.missing for ticker in self.tickers()}

    def reset_gaps(self):
        """Only the largest gaps count from here; ticks are judged by those before as well."""
        self._largest_ms = max(self._largest_ms, self.gap_ms())
        for number in range(self.vcpus):
            self._wide[(self.vcpu(number) + 0x10 - BASE) // 8] = 0

    def park(self):
        """Nothing writes guest memory any more until `unpark`."""
        self._narrow[0x80 // 4] = 1
        wait_until(lambda: self.state == PARKED, lambda: f"the guest parks\n{self.describe()}")

    def unpark(self):
        self._narrow[0x80 // 4] = 0
        wait_until(lambda: self.state == RUNNING, lambda: f"the guest goes on\n{self.describe()}")
        self._missing = {}

    def digest(self):
        """SHA-256 of guest memory as it is: where there are pages, and what is in them."""
        digest, offset = hashlib.sha256(), 0
        while True:
            try:
                begin = os.lseek(self.file, offset, SEEK_DATA)
            except OSError:
                return digest.hexdigest()
            offset = os.lseek(self.file, begin, SEEK_HOLE)
            digest.update(struct.pack("<QQ", begin, offset))
            while begin < offset:
                chunk = os.pread(self.file, min(1 << 20, offset - begin), begin)
                digest.update(chunk)
                begin += len(chunk)

    # Judging

    def assert_unharmed(self, gap_ms=None, devices_held=False):
        """The guest goes on, found no damage, and misses no tick without excuse. `gap_ms`: it was never stopped for longer.

        `devices_held`: its devices waited for a second while it ran: ticks of the PIT came late, but none too many.
        """
        self.wait_progress()
        # Deadline timers take what a stop delayed one by one: they need a moment after a long one.
        wait_until(self._accounts_agree, lambda: f"every tick is in some account\n{self.describe()}")
        what = self.describe()
        assert self.state == RUNNING, what
        assert self.damage == 0, what
        for ticker in self.tickers():
            # Of the ticks that a busy host delays beyond their period, one in sixteen cannot be told from a lost one (docs/guest.md).
            excused = (ticker.lost_late + 15) // 8 if ticker.lost_late else 0
            held = devices_held and ticker.name == "PIT"
            assert ticker.lost <= excused or held, f"lost ticks: {ticker}\n{what}"
            # After a stop of about a period or more, the delayed ticks follow one another quickly: early, but none too many.
            stopped = held or max(self._largest_ms, self.gap_ms()) * 1000 > ticker.period_us / 2
            assert ticker.doubled == 0 or stopped and ticker.ticks + ticker.doubled <= ticker.expected + 1, f"doubled ticks: {ticker}\n{what}"
        if gap_ms is not None:
            assert self.gap_ms() <= gap_ms, f"stopped for longer than {gap_ms} ms\n{what}"

    def _accounts_agree(self):
        return all(abs(ticker.missing - self._missing.get(ticker.name, 0)) <= 1 for ticker in self.tickers())
