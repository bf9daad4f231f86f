"""The criteria for a guest that was handed over under load. Each function returns what is wrong, in words; nothing is right."""
import re

from . import disks

MOST_CLOCK_ERROR_US = 1000
SHORTEST_INTERVAL_NS = 10_000_000
# Every guest of the lab says it now and then as it boots, handed over or not: another processor was not given time at once.
STARVED = re.compile(r"clocksource: Watchdog remote CPU \d+ read timed out")


def loads(results, connections=1):
    """What `Running.finish` brought. `connections`: how often the host's clients connected; more than one excuses what came twice."""
    wrong = list(results["problems"])

    def need(word, **expected):
        found = results.get(word)
        if found is None:
            wrong.append(f"{word} said nothing at the end")
            return
        for key, value in expected.items():
            if found.get(key.replace("_", "-")) != value:
                wrong.append(f"{word}: {key} is {found.get(key.replace('_', '-'))}, not {value}: {found}")

    need("cpu", memory_errors="0", register_errors="0")
    need("clock", went_back="0")
    need("disk", failed="0")
    need("files", differ="0")
    need("stream", wrong="0", ended="1")
    need("peer", status=0, wrong="0", ended="1")
    for word, counter in (("cpu", "passes"), ("disk", "runs"), ("files", "written"), ("stream", "received"), ("peer", "received")):
        if int(results.get(word, {}).get(counter, 0)) == 0:
            wrong.append(f"{word}: no {counter}: {results.get(word)}")
    if "peer" in results and "stream" in results:
        for mine, other in (("sent", "received"), ("received", "sent")):
            if results["peer"].get(mine) != results["stream"].get(other):
                wrong.append(f"TCP: the host {mine} {results['peer'].get(mine)} bytes, the guest {other} {results['stream'].get(other)}")
    clock = results.get("clock", {})
    # The last expirations may not have been read yet.
    if abs(int(clock.get("ticks", 0)) - int(clock.get("expected", 1))) > 5 + int(clock.get("expected", 0)) // 100:
        wrong.append(f"ticks: {clock}")
    for tag, stream in results["numbered"].items():
        if stream.end is None or not stream.end or stream.missing:
            wrong.append(f"console stream {tag}: {stream}")
        if (stream.twice or stream.damaged) and connections == 1:
            wrong.append(f"console stream {tag}: {stream}")
    return wrong


def disk(results):
    """fio alone, of a guest that has not all loads."""
    found = results.get("disk", {})
    return [] if found.get("failed") == "0" and int(found.get("runs", 0)) > 0 else [f"fio: {found}"]


def clock(before, after, most_us=MOST_CLOCK_ERROR_US, drift_us=0):
    """`drift_us`: by how much it is off in a second in which nothing is done."""
    error, seconds = after.error_us(before), (after.host_ns - before.host_ns) / 1e9
    return [] if abs(error) < most_us + abs(drift_us) * seconds else [f"the guest's clock is off by {error:+.0f} us after {seconds:.0f} s"]


def messages(now, reference):
    """Kernel messages that a run without handovers did not show. Numbers and addresses differ each time."""

    def kind(line):
        return re.sub(r"0x[0-9a-f]+|[0-9]+", "N", re.sub(r"^\[ *[0-9.]+\] *", "", line))

    # Linux 7.2's clock watchdog also judges two readings a few microseconds apart, which is what it gets when its timer was late by more
    # than its period of half a second, as on a starved processor. That says nothing about clocks; `clock` does.
    intervals = [int(found[1]) for found in (re.search(r"Watchdog +kvm-clock interval: +(\d+)ns", line) for line in now) if found]
    if intervals and max(intervals) < SHORTEST_INTERVAL_NS:
        now = [line for line in now if not re.search(r"unstable due to frequency skew|(kvm-clock|tsc) interval:|TSC unstable due to clocksource watchdog", line)]
    known = {kind(line) for line in reference}
    return [f"the guest's kernel says: {line}" for line in now if kind(line) not in known and not STARVED.search(line)]


def file_system(path):
    clean, said = disks.check(path)
    return [] if clean else [f"e2fsck on {path.name}: {said.strip()}"]


def all_right(*complaints):
    wrong = [line for found in complaints for line in found]
    assert not wrong, "\n".join(wrong)
