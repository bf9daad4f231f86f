"""What passed-through devices cost a handover: the blackout of an idle Linux guest with 0, 1, 2 and 4 NVMe devices, by phase and back end, and
the same of QEMU's cpr-transfer: same guest, devices and lab, in turns.

Figures, not verdicts: a table, all samples in figures.json. Two measures are the same for both, and neither believes the guest's clocks, which QEMU
stops for a part of the blackout:

guest   its own largest gap between two readings of its clocks, from when the incoming side is ready until it was seen to go on, and what its
        clocks lost against the host's meanwhile
kernel  out of KVM_RUN in the outgoing process until the first KVM_RUN in the incoming one, by tracepoints, of the vCPU that was away for
        longest. Baton's counts from the first exit after it began to stop, QEMU's, whose vCPUs also exit before that, from the last exit of all
told    what each says itself: the supervisor's account, the time from QEMU's event STOP to its event RESUME
"""
import json
import time

import kernel_trace
import pytest
import qemu as peer
from support import clocks

from guests import passed, programs
from guests.baton import Blackouts
from guests.cpr import CprGuest
from guests.spec import Spec

NVME = [f"0000:00:{number:02x}.0" for number in (5, 6, 7, 8)]
TURNS, HANDOVERS = 2, 5
PAUSE = 0.2
# What a reading of the guest's clocks against the host's takes.
CLOCKS_SECONDS = 0.3
# How often the guest reads its clocks: what its gaps are without a handover.
READ_US = 5000
READ_ALL = "for disk in /sys/block/nvme*; do dd if=/dev/${disk##*/} of=/dev/null bs=4k count=1 2>/dev/null && echo read; done; true"
BACKENDS = ["iommufd", "container"]
SYSTEMS = [(system, count, backend) for count in (0, 1, 2, 4) for backend in (BACKENDS if count else ["none"]) for system in ("QEMU", "Baton")
           if (system, backend) != ("QEMU", "container") or programs.LONG]
HEAD = f"{'medians and most, ms':32}{'guest':>20}{'kernel':>20}{'told':>20}{'clocks lost':>20}{'no handover':>20}"
found, told = {}, []


class Qemu:
    """The newest QEMU's cpr-transfer."""

    def __init__(self, request, directory, devices):
        self.guest = CprGuest(Spec(directory, kernel="lab", name="qemu", passed=devices))
        request.addfinalizer(self.guest.close)

    def sample(self, trace, number):
        page, outgoing = self.guest.page, peer.threads(self.guest.pid)

        def ready(*pids):
            trace.follow(pids)
            trace.clear()
            page.forget_gap()

        done = self.guest.hand_over(ready)
        stops = kernel_trace.stops(trace.events(), outgoing, peer.threads(done.process.pid), done.ordered)
        return {"gap": page.gap_ms, "kernel": longest((last, entered) for _, last, entered in stops.values()), "told": (done.end - done.begin) / 1e6}


class Baton:
    """A machine of a supervisor, between the two honest images."""

    def __init__(self, request, devices):
        self.guest = request.getfixturevalue("start")(kernel="lab", passed=devices)
        self.machine = self.guest.machine
        self.images = self.machine.supervisor.images

    def sample(self, trace, number):
        page, pid = self.guest.page, self.machine.wait_one_worker()
        outgoing = kernel_trace.vcpu_threads(pid)
        trace.follow([pid, self.machine.supervisor.batond])
        trace.clear()

        def progress(step):
            if (step["phase"], step["state"]) == ("prepared", "end"):
                page.forget_gap()

        record = self.guest.hand_over(self.images.honest if number % 2 else self.images.next, progress)
        workers = self.machine.workers
        ordered = clocks.step_times(record)["park"][0]
        stops = kernel_trace.stops(trace.events(), outgoing, kernel_trace.vcpu_threads(workers[max(workers)]), ordered)
        kernel = longest((left, entered) for left, _, entered in stops.values())
        return {"gap": page.gap_ms, "kernel": kernel, "told": record["blackoutNanoseconds"] / 1e6, "record": record}


def longest(times):
    """The longest of the times between two moments, in milliseconds."""
    return max(((end - begin) / 1e6 for begin, end in times), default=None)


def observe(subject, trace, number):
    """One handover, and what the guest's clocks were before and after it."""
    page = subject.guest.page
    idle, before = gap_without(subject.guest), page.read(CLOCKS_SECONDS)
    sample = subject.sample(trace, number)
    lost = page.read(CLOCKS_SECONDS).error_us(before) / 1000
    return {"idle": idle, "lost": lost, "guest": sample["gap"] + lost, **sample}


def gap_without(guest, seconds=1.0):
    """The guest's largest gap while nothing is done to it."""
    guest.page.forget_gap()
    time.sleep(seconds)
    return guest.page.gap_ms


def spread(values):
    values = sorted(value for value in values if value is not None)
    return f"{values[len(values) // 2]:.1f}, most {values[-1]:.1f}" if values else "none"


def row(name, samples):
    return f"{name:32}" + "".join(f"{spread([sample[measure] for sample in samples]):>20}" for measure in ("guest", "kernel", "told", "lost", "idle"))


@pytest.fixture
def trace():
    with kernel_trace.KernelTrace() as made:
        yield made


@pytest.mark.handover
@pytest.mark.parametrize("system,count,backend", SYSTEMS)
@pytest.mark.parametrize("turn", range(TURNS))
def test_blackout(request, directory, figures, trace, turn, system, count, backend):
    devices = tuple({"address": address, "backend": backend} for address in NVME[:count])
    for device in devices:
        passed.give_away(device["address"])
    subject = Qemu(request, directory, devices) if system == "QEMU" else Baton(request, devices)
    guest, samples = subject.guest, found.setdefault((system, count, backend), [])
    guest.wait_ready()
    guest.wait_page()
    guest.read_clocks_each(READ_US)
    for number in range(HANDOVERS):
        time.sleep(PAUSE)
        samples.append(observe(subject, trace, number))
    status, said = guest.run(READ_ALL)
    assert status == 0 and said.count("read") == count, said
    guest.power_off()
    for device in devices:
        passed.give_back(device["address"])
    everything = [{"system": key[0], "devices": key[1], "backend": key[2], "samples": samples} for key, samples in found.items()]
    (programs.RESULTS / "figures.json").write_text(json.dumps(everything))
    if turn == TURNS - 1:
        tell(figures, system, count, backend)


def tell(figures, system, count, backend):
    samples = found[system, count, backend]
    if not told:
        figures(HEAD)
    told.append(system)
    figures(row(f"{system}, {count} devices, {backend}", samples))
    if system == "Baton":
        figures(f"    {Blackouts([sample['record'] for sample in samples])}")
