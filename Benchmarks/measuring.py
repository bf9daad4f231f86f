"""One machine under measurement: what its guest, its supervisor and the kernel say of a handover, of a stop in place, and of nothing at all.

All times are nanoseconds; points in time are CLOCK_MONOTONIC.
"""
import threading
import time

import kernel_trace
from support import clocks, processes
from support.control import CallFailed, Control
from support.machine import Machine

# How long the guest's speed is taken before each event, and the window in which it must have half of it again.
BASELINE, WINDOW = 50_000_000, 5_000_000
# A gap shorter than this is no stop: near the guest's own work between two readings of the TSC.
NOTED = 120_000
PARTS = ["park", "save", "load", "commit", "running"]
# What one process does and another waits for: (name, end of the step before it, beginning of the one after).
MESSAGES = [("saved → load", ("save", "end"), ("load", "begin"))]


def note_gaps(evidence):
    """Has a guest that has the CPUs to itself remember gaps, from a length on at which they last. Of each vCPU it remembers sixteen, which are looked at
    after the stop: on a slow host each of its rounds may be one, and where its vCPUs share CPUs, a tick of one is a gap of another."""
    ns = NOTED
    while ns < 1_000_000_000:
        clocks.note_gaps_over(evidence, ns)
        if all(_remembered(evidence, 0.02) <= 6 for _ in range(5)):
            return
        ns = ns * 5 // 4


def _remembered(evidence, seconds):
    """How many gaps the vCPU that has most of them remembers in a time."""
    before = clocks.stall_counts(evidence)
    time.sleep(seconds)
    return max(after - then for then, after in zip(before, clocks.stall_counts(evidence)))


class Speed(threading.Thread):
    """Looks at the guest's beats each millisecond while it lives."""

    def __init__(self, evidence):
        super().__init__(daemon=True)
        self.evidence, self.samples, self._over = evidence, [], threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def run(self):
        while not self._over.is_set():
            self.samples.append((time.monotonic_ns(), sum(self.evidence.beats())))
            time.sleep(0.001)

    def rate(self, begin, end):
        """Beats per nanosecond between the samples nearest to these times."""
        inside = [sample for sample in list(self.samples) if begin <= sample[0] <= end]
        if len(inside) < 2:
            return None
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    def half_speed_after(self, since, usual):
        """How long after `since` the guest began to have at least half its usual speed; None if it is not known yet."""
        samples = [sample for sample in list(self.samples) if sample[0] >= since]
        first = 0
        for last, (ns, beats) in enumerate(samples):
            while samples[first][0] < ns - WINDOW:
                if first + 1 > last:
                    break
                begin, then = samples[first]
                if (beats - then) / (ns - begin) >= usual / 2:
                    return begin - since
                first += 1
        return None


class Rig:
    """A machine with touched memory, and everything that watches it."""

    def __init__(self, supervisor, memory_mib, vcpus, trace, cpus=(), options="", pages=None, devices=(), with_speed=False):
        """`cpus`: where vCPU 0, 1 … run, one each. `options`: more of the guest's command line. `pages`, `devices`: the machine file's
        `memory.pages` and `devices`. `with_speed`: the guest's speed is looked at each millisecond, which takes its CPUs as much time."""
        self.supervisor, self.memory_mib, self.vcpus, self.trace, self.with_speed = supervisor, memory_mib, vcpus, trace, with_speed
        self.name = f"bench-{memory_mib}-{vcpus}-{len(devices)}{pages or ''}".lower()
        # The guest's own touching makes the pages exist in the worker's tables too, as they would in a machine that has run for long.
        self.machine = Machine(
            supervisor, self.name, vcpus=vcpus, memory=f"{memory_mib}MiB",
            cmdline=f"touch-mib={memory_mib} report-ms=1000 {options}", budget="1s")
        self.machine.spec["memory"]["prefault"] = True
        if pages:
            self.machine.spec["memory"]["pages"] = pages
        if devices:
            self.machine.spec["devices"] = list(devices)
        if cpus:
            self.machine.spec["vcpu-affinity"] = [[cpu] for cpu in cpus]
        self.control = Control(supervisor.socket)

    def __enter__(self):
        try:
            self.machine.run(30 + self.memory_mib // 20)  # it touches all of it first
        except BaseException:
            self.__exit__()  # nobody else would let go of the guest's memory
            raise
        self.evidence = self.machine.evidence
        note_gaps(self.evidence)
        return self

    def __exit__(self, *_):
        self.control.close()
        if self.machine.evidence:
            self.machine.evidence.close()
        self.supervisor.baton("stop", self.name, "--force")

    # One event each. What they return goes into the JSON as it is.

    def handover(self, image):
        self._follow(self.machine.wait_one_worker())
        try:
            with self._watched() as seen:
                record = self.control.upgrade(self.name, image, seen.progress)
        except CallFailed as failure:
            return {"outcome": failure.error, "reason": str(failure)}
        if "blackoutNanoseconds" not in record:
            raise AssertionError(f"nobody knows how long the guest stood: {record}")
        steps = clocks.step_times(record)
        ordered, ran = steps["park"][0], steps["running"][1]
        result = {
            "outcome": "committed",
            "total": record["totalNanoseconds"],
            "blackout": record["blackoutNanoseconds"],
            "phases": {phase["name"]: phase["nanoseconds"] for phase in record["phases"]},
            "messages": {name: self._moment(steps, after) - self._moment(steps, before) for name, before, after in MESSAGES},
            **seen.gaps(ordered, ran),
            **seen.speed(ran),
            **self._kernel(seen.threads, self._threads(), ordered),
        }
        accounted = sum(result["phases"].get(name, 0) for name in [*PARTS, "messages"])
        result["unattributed"] = result["stop_gap"] and result["stop_gap"] - accounted
        return result

    def stop_in_place(self):
        """The control: the same guest stopped and started by the same worker, at two commands."""
        self._follow(self.machine.wait_one_worker())
        try:
            with self._watched() as seen:
                begin = time.monotonic_ns()
                self.control.call("Pause", machine=self.name)
                self.control.call("Resume", machine=self.name)
                end = time.monotonic_ns()
        except CallFailed as failure:
            return {"outcome": failure.error, "reason": str(failure)}
        return {"outcome": "resumed", "total": end - begin, **seen.gaps(begin, end), **seen.speed(end), **self._kernel(seen.threads, seen.threads, begin)}

    def idle(self, seconds):
        """The other control: nothing is done, for as long as a handover takes."""
        with self._watched() as seen:
            begin = time.monotonic_ns()
            time.sleep(seconds)
            end = time.monotonic_ns()
        seen.close()
        return {"total": end - begin, **seen.gaps(begin, end)}

    def memory(self):
        """Bytes of the worker, of batond and of baton-keep."""
        batond = processes.wait_until(lambda: self.supervisor.batond, "there is a batond")
        pids = {"worker": self.machine.wait_one_worker(), "batond": batond, "keeper": self.supervisor.keeper.pid}
        return {name: memory_of(pid) for name, pid in pids.items()}

    # How it is done

    def _threads(self):
        """The vCPU threads of the newest worker."""
        workers = self.machine.workers
        return kernel_trace.vcpu_threads(workers[max(workers)])

    def _follow(self, worker):
        if self.trace:
            self.trace.follow([worker, processes.wait_until(lambda: self.supervisor.batond, "there is a batond")])

    def _watched(self):
        return Watch(self.evidence, self.trace, self._threads(), self.with_speed)

    @staticmethod
    def _moment(steps, point):
        name, side = point
        return steps[name][0 if side == "begin" else 1] if name in steps else 0

    def _kernel(self, outgoing, incoming, ordered):
        if not self.trace:
            return {"kernel": None}
        stops = kernel_trace.stops(self.trace.events(), outgoing, incoming, ordered)
        if not stops:
            return {"kernel": None}
        # The machine's stop is that of the vCPU that was out of KVM_RUN for longest.
        left, last, entered = max(stops.values(), key=lambda stop: stop[2] - stop[0])
        return {"kernel": {"stopped": entered - left, "leaving": last - left, "away": entered - last, "order_to_left": left - ordered}}


class Watch:
    """What is watched around one event."""

    def __init__(self, evidence, trace, threads, with_speed):
        self.evidence, self.trace, self.threads = evidence, trace, threads
        self._earlier, self._stalls = 0, []
        self._speed = Speed(evidence) if with_speed else None

    def __enter__(self):
        if self._speed:
            self._speed.__enter__()
        time.sleep(BASELINE / 1e9)
        self.evidence.reset_counters()
        if self.trace:
            self.trace.clear()
        self.began = time.monotonic_ns()
        self.usual = self._speed and self._speed.rate(self.began - BASELINE, self.began)
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.evidence.wait_progress(10)
                self._gaps = clocks.gaps(self.evidence)
        except BaseException:
            self.close()
            raise
        if kind is not None:
            self.close()

    def progress(self, step):
        """Nothing is stopped before *prepared* ends: the gaps from there on are the stop's, but for those of a busy host, which may soon take its place
        in the guest's list."""
        if (step["phase"], step["state"]) == ("prepared", "end"):
            self._earlier = max(gap.ns for gap in clocks.gaps(self.evidence))
            self.evidence.reset_gaps()
        if (step["phase"], step["state"]) == ("running", "end"):
            self._stalls = clocks.stalls(self.evidence)

    def close(self):
        """Ends what goes on in the background."""
        if self._speed:
            self._speed.__exit__()

    def gaps(self, begin, end):
        """The largest gap of any vCPU, and the largest of those that were seen over the stop between these times."""
        return {"gap": max(self._earlier, *(gap.ns for gap in self._gaps)), "stop_gap": clocks.gap_over(self.evidence, begin, end, self._stalls),
                "since_prepared": max(gap.ns for gap in self._gaps)}

    def speed(self, since):
        """Beats per second before, and how long after `since` the guest had half that again; None where nobody looks."""
        deadline = time.monotonic_ns() + 1_000_000_000
        found = None
        while self.usual and found is None and time.monotonic_ns() < deadline:
            time.sleep(0.005)
            found = self._speed.half_speed_after(since, self.usual)
        self.close()
        return {"beats_per_second": self.usual and round(self.usual * 1e9), "half_speed_after": found}


def memory_of(pid):
    """RssAnon, RssShmem and Pss of a process in bytes; None for what may not be read."""
    status = processes.status(pid)
    found = {name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem")}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            found["Pss"] = next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except OSError:
        found["Pss"] = None
    return found
