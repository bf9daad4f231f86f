"""The guest's clocks against the host's, read from the guest's evidence while it runs; and where on the host's clock things happened."""
import collections
import dataclasses
import time


def raw_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


# Less than this is not worth waiting for more samples.
IMPROVEMENT_NS = 5000


@dataclasses.dataclass(frozen=True)
class Reading:
    """By how much the host's CLOCK_MONOTONIC_RAW is ahead of the guest's clocks, each counted from its own zero.

    One reading says nothing; the difference of two says by how much a clock of the guest lost (positive) or gained time between them.
    """

    host_ns: int
    behind_tsc_ns: int
    behind_kvmclock_ns: int
    samples: int

    def tsc_error_us(self, since):
        return (self.behind_tsc_ns - since.behind_tsc_ns) / 1000

    def kvmclock_error_us(self, since):
        return (self.behind_kvmclock_ns - since.behind_kvmclock_ns) / 1000


def read(evidence, number=0, seconds=1.0):
    """Watches a vCPU's samples until `seconds` have brought nothing better, at most ten times as long.

    The guest reads its clocks, then publishes them under a sequence, and the host's clock is read after that. So each sample makes the
    guest look late by however long it took until it was seen, never early: the least of many is the closest to the truth.
    """
    record = evidence.vcpu(number)
    khz, boot_tsc = evidence.tsc_khz, evidence.boot_tsc
    best = None
    samples, seen, began = 0, None, raw_ns()
    improved = now = began
    while now < improved + seconds * 1e9 and now < began + 10 * seconds * 1e9:
        before = evidence.u64(record + 0x80)
        tsc, kvmclock = evidence.u64(record + 0x88), evidence.u64(record + 0x90)
        after = evidence.u64(record + 0x80)
        now = raw_ns()
        if before == seen or before % 2 or after != before:
            continue
        samples, seen = samples + 1, before
        # In whole numbers: a double has too few digits for a long uptime in nanoseconds.
        behind = (now - (tsc - boot_tsc) * 1_000_000 // khz, now - kvmclock)
        if best is None or behind[0] < best[0]:
            if best is None or behind[0] < best[0] - IMPROVEMENT_NS:
                improved = now
            best = behind
    if best is None:
        raise AssertionError(f"vCPU {number} published no sample of its clocks\n{evidence.describe()}")
    return Reading(now, *best, samples)


# Where on the host's CLOCK_MONOTONIC things happened.

Gap = collections.namedtuple("Gap", "vcpu ns ended_ns")


def _nanoseconds(evidence):
    """(a function that makes ns of the guest's TSC, what is to be added for CLOCK_MONOTONIC)."""
    khz = evidence.tsc_khz

    def in_ns(tsc):
        return tsc * 1_000_000 // khz

    # A reading of the TSC is older than the look at it, never younger: the least difference of many is the best. Where this process has taken the guest's
    # CPU, all looks are late until it sleeps.
    last = evidence.vcpu(0) + 0x08
    ahead = []
    for _ in range(10):
        ahead += [time.monotonic_ns() - in_ns(evidence.u64(last)) for _ in range(30)]
        time.sleep(0.0001)
    return in_ns, min(ahead)


def gaps(evidence):
    """The largest gap each vCPU saw since its counters were reset."""
    in_ns, ahead = _nanoseconds(evidence)
    records = [(number, evidence.vcpu(number)) for number in range(evidence.vcpus)]
    return [Gap(number, in_ns(evidence.u64(record + 0x10)), in_ns(evidence.u64(record + 0x18)) + ahead) for number, record in records]


def note_gaps_over(evidence, ns):
    """From now on every gap as long as this is in the list that ``stalls`` returns, 16 of each vCPU. Ticks are no longer to be judged."""
    for number in range(evidence.vcpus):
        evidence.set_u64(evidence.vcpu(number) + 0x20, ns * evidence.tsc_khz // 1_000_000)


def stall_counts(evidence):
    """How many gaps were long enough, of each vCPU."""
    return [evidence.u64(evidence.vcpu(number) + 0x28) for number in range(evidence.vcpus)]


def stalls(evidence):
    """The latest gaps that were long enough, of all vCPUs; those of earlier events as well."""
    # At once: newer ones take their places.
    entries = [
        (number, evidence.u64(entry), evidence.u64(entry + 8))
        for number in range(evidence.vcpus) for entry in range(evidence.vcpu(number) + 0x300, evidence.vcpu(number) + 0x400, 16)]
    in_ns, ahead = _nanoseconds(evidence)
    return [Gap(number, in_ns(gap), in_ns(tsc) + ahead) for number, tsc, gap in entries if tsc]


def gaps_over(evidence, begin_ns, end_ns, seen=()):
    """The gaps over a time, of all vCPUs: of those that are in the lists still, of the largest ones since the counters were reset, and of those `seen`
    earlier."""
    return [gap for gap in stalls(evidence) + gaps(evidence) + list(seen) if is_within(gap, begin_ns, end_ns)]


def gap_over(evidence, begin_ns, end_ns, seen=()):
    """The longest gap over a time, of any vCPU; None where all are forgotten."""
    return max((gap.ns for gap in gaps_over(evidence, begin_ns, end_ns, seen)), default=None)


def is_within(gap, begin_ns, end_ns, tolerance_ns=200_000):
    """Whether a gap overlaps a time."""
    return gap.ended_ns - gap.ns <= end_ns + tolerance_ns and gap.ended_ns >= begin_ns - tolerance_ns


def step_times(record):
    """The steps of a handover's record as {name: (begin, end)}; a step that did not end has its beginning twice."""
    began = record["startedAtNanoseconds"] - _wall_ahead_ns()
    return {
        step["phase"]: (began + step["beginNanoseconds"], began + step.get("endNanoseconds", step["beginNanoseconds"]))
        for step in record["steps"]
    }


def _wall_ahead_ns():
    readings = []
    for _ in range(10):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]
