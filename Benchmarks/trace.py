#!/usr/bin/env python3
"""Where every microsecond of the blackout goes: docs/performance.md and its picture, from traces of handovers.

One vCPU, pinned, 64 MiB. What the guest missed is cut where the supervisor's steps and the kernel's events say that one thing ended and the
next began; what no event explains is `unattributed`. In as many handovers again, by turns, all ioctls of the two workers are
traced as well, for the table of ioctls alone: that lengthens what is measured.
"""
import argparse
import collections
import os
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
import kernel_trace  # noqa: E402
import peers  # noqa: E402
from blackout import Progress, host, place  # noqa: E402
from figures import duration, percentile, spread  # noqa: E402
from measuring import Rig  # noqa: E402
from results import markdown  # noqa: E402
from support import clocks, processes  # noqa: E402
from support.images import Images  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402

# (name, lane, from, to): points in time of one handover, in order. Lanes: 0 outgoing, 1 supervisor, 2 incoming, 3 the guest.
PARTS = [
    ("the guest's last reading of its TSC → out of KVM_RUN", 0, "gap", "left"),
    ("complete what was half done; expired timers to the IRR", 0, "left", "last"),
    ("read the state, write the checkpoint", 0, "last", "save"),
    ("wake: outgoing → incoming", 1, "save", "load_begin"),
    ("read the checkpoint, write the state", 2, "load_begin", "load"),
    ("commit", 2, "load", "run_begin"),
    ("let the vCPUs go, their last MSRs", 2, "run_begin", "entered"),
    ("KVM_RUN → the guest's first reading", 3, "entered", "gap_end"),
]
UNATTRIBUTED = {"the guest's last reading of its TSC → out of KVM_RUN", "KVM_RUN → the guest's first reading"}


def points(record, gaps, outgoing, incoming, events):
    """{point: ns} of one handover, or None when something was not seen. `gaps`: what the guest saw soon after it."""
    steps = clocks.step_times(record)
    runs = [kernel_trace.Event(thread, ns, name.startswith("sys_ioctl(")) for thread, ns, name, command in events
            if name == "kvm_userspace_exit" or command == kernel_trace.KVM_RUN]
    stops = kernel_trace.stops(runs, outgoing, incoming, steps["park"][0])
    if 0 not in stops or not {"saved", "load", "running"} <= set(steps):
        return None
    left, last, entered = stops[0]
    over = [gap for gap in gaps if gap.ended_ns - gap.ns <= left + 20_000 and gap.ended_ns >= entered]
    if not over:
        return None
    gap = max(over, key=lambda gap: gap.ns)
    found = {"gap": gap.ended_ns - gap.ns, "left": left, "last": last, "save": steps["save"][1], "saved": steps["saved"][1],
             "load_begin": steps["load"][0], "load": steps["load"][1],
             "run_begin": steps["running"][0], "entered": entered, "gap_end": gap.ended_ns}
    found["ordered"] = steps["park"][0]
    return found


def ioctls(events, outgoing, incoming, when):
    """ns in each kind of ioctl: {("save" or "load", name): ns}."""
    names, found, begun = request_names(), collections.Counter(), {}
    for thread, ns, name, command in events:
        if name.startswith("sys_ioctl("):
            begun[thread] = (ns, command)
        elif name.startswith("sys_ioctl ->") and thread in begun:
            began, which = begun.pop(thread)
            for side, low, high in (("save", "last", "save"), ("load", "load_begin", "load")):
                if which != kernel_trace.KVM_RUN and when[low] - 2000 <= began and ns <= when[high] + 2000:
                    found[side, names.get(which & 0xFF, hex(which))] += ns - began
    return found


def request_names():
    """KVM's request numbers by their last byte, as <linux/kvm.h> has them."""
    text = pathlib.Path("/usr/include/linux/kvm.h").read_text()
    return {int(number, 16): name for name, number in re.findall(r"#define\s+(KVM_(?:GET|SET|X86|KVMCLOCK|HAS)\w*)\s+_IO[WR]*\(KVMIO,\s*(0x\w+)", text)}


def collect(count):
    """The host, and handovers by whether every ioctl was traced: {False: […], True: […]}, `count` of each, less those not seen."""
    progress, about = Progress(), host()
    handovers = {False: [], True: []}
    with kernel_trace.KernelTrace() as trace, place() as directory:
        images = Images(directory / "images")
        with Supervisor(images) as supervisor, Rig(supervisor, 64, 1, trace, cpus=peers.pin(1, peers.host_cpus())) as rig:
            for number in range(2 * count):
                every_ioctl = number // 2 % 2 == 1
                trace.every_ioctl(every_ioctl)
                rig._follow(rig.machine.wait_one_worker())
                time.sleep(0.1)
                outgoing = rig._threads()
                trace.clear()
                record = rig.control.upgrade(rig.name, (images.next, images.honest)[number % 2])
                gaps = clocks.stalls(rig.evidence) + clocks.gaps(rig.evidence)
                rig.evidence.wait_progress(20)
                incoming, events = rig._threads(), trace.calls()
                when = points(record, gaps, outgoing, incoming, events)
                if when:
                    found = ioctls(events, outgoing, incoming, when) if every_ioctl else None
                    handovers[every_ioctl].append({"when": when, "ioctls": found})
                progress.show("traced handovers", number + 1, 2 * count)
    return about, handovers


def parts_of(when):
    return [max(0, when[end] - when[begin]) for _, _, begin, end in PARTS]


def gaps_of(handovers):
    return [h["when"]["gap_end"] - h["when"]["gap"] for h in handovers]


def page(about, count, handovers, detailed, commit):
    gaps = gaps_of(handovers)
    columns = list(zip(*(parts_of(h["when"]) for h in handovers)))
    rows = []
    for (name, _, _, _), values in zip(PARTS, columns):
        s = spread(list(values))
        mark = " (unattributed)" if name in UNATTRIBUTED else ""
        rows.append([name + mark, duration(s["p50"]), duration(s["p99"]), f"{percentile(values, 50) / percentile(gaps, 50):.0%}"])
    known = [sum(value for (name, _, _, _), value in zip(PARTS, parts_of(h["when"])) if name not in UNATTRIBUTED) for h in handovers]
    rest = [gap - part for gap, part in zip(gaps, known)]
    for name, values in (("**unattributed**, all in all", rest), ("**what the guest missed**", gaps)):
        s = spread(values)
        rows.append([name, duration(s["p50"]), duration(s["p99"]), f"{s['p50'] / percentile(gaps, 50):.0%}"])
    calls = []
    for side in ("save", "load"):
        names = {name for h in detailed for which, name in h["ioctls"] if which == side}
        medians = {name: percentile([h["ioctls"][side, name] for h in detailed], 50) for name in names}
        calls += [[side, name, duration(ns)] for name, ns in sorted(medians.items(), key=lambda item: -item[1]) if ns >= 1000]
        part = {"save": 2, "load": 4}[side]
        rest = percentile([parts_of(h["when"])[part] - sum(ns for (which, _), ns in h["ioctls"].items() if which == side) for h in detailed], 50)
        calls.append([side, "everything else in it: encoding, copying, threads waking one another, the tracing", duration(rest)])
    return f"""# Where the blackout goes

Written by `make bench-trace` from {len(handovers)} of {count} handovers of one pinned vCPU with 64 MiB, {time.strftime('%Y-%m-%d', time.gmtime())}, {commit};
{about['cpus']} CPUs, {about['processor']}, Linux {about['kernel']}, {about['busy_before']:.0%} busy with other things before.

{markdown(["Part, in order", "p50", "p99", "share"], rows)}

Parts are cut where events are: the supervisor's steps (`baton history --phases`), `kvm_userspace_exit` and the ioctl KVM_RUN of the vCPU's two threads, and
the two readings of the guest's TSC on either side of the gap. What lies between a reading and the kernel's event is *unattributed*: the way
into and out of the guest, page faults of a VM whose page tables are new, and waiting for a processor. Medians of parts do not add up to the median of the whole.

![One handover](performance.svg)

The picture is the handover whose gap is the median.

*save* and *load* in ioctls, medians, of those that take a microsecond or more; from {len(detailed)} other handovers, in turns with the first, with each ioctl
traced at both ends. The guest missed {duration(percentile(gaps_of(detailed), 50))} so, {duration(percentile(gaps, 50))} otherwise.

{markdown(["", "ioctl", "p50"], calls)}
"""


LANES = ["outgoing worker", "supervisor", "incoming worker", "guest"]
COLOURS = ["#bf8700", "#8250df", "#1a7f37", "#cf222e"]


def picture(handovers):
    ordered = sorted(handovers, key=lambda h: h["when"]["gap_end"] - h["when"]["gap"])
    when = ordered[len(ordered) // 2]["when"]
    begin, end = min(when["gap"], when["ordered"]), when["gap_end"]
    margin = (end - begin) // 12
    begin, end = begin - margin, end + margin

    def x(ns):
        return 130 + 800 * (ns - begin) / (end - begin)

    def bar(lane, low, high, colour, label=""):
        return (f'<rect x="{x(low):.1f}" y="{34 + 40 * lane}" width="{max(0.8, x(high) - x(low)):.1f}" height="22" fill="{colour}">'
                f'<title>{label}: {duration(high - low)}</title></rect>')

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 250" font-family="sans-serif" font-size="12">',
             '<rect width="950" height="250" fill="white"/>',
             f'<text x="12" y="20" font-size="14">One handover: the guest misses {duration(when["gap_end"] - when["gap"])}</text>']
    parts += [f'<text x="12" y="{50 + 40 * lane}">{name}</text>' for lane, name in enumerate(LANES)]
    parts += [bar(3, begin, when["gap"], "#2da44e", "guest runs"), bar(3, when["gap"], when["gap_end"], "#cf222e", "guest does not run"),
              bar(3, when["gap_end"], end, "#2da44e", "guest runs"), bar(1, when["ordered"], when["ordered"] + 2000, "#8250df", "order to stop")]
    for (name, lane, low, high) in PARTS:
        if lane < 3:
            parts.append(bar(lane, when[low], max(when[low], when[high]), COLOURS[lane], name))
    step = next(size for size in (10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 10**9) if (end - begin) / size <= 14)
    for number in range(int((end - when["ordered"]) // step) + 1):
        at = when["ordered"] + number * step
        parts += [f'<line x1="{x(at):.1f}" y1="30" x2="{x(at):.1f}" y2="196" stroke="#d0d7de" stroke-dasharray="2 3"/>',
                  f'<text x="{x(at):.1f}" y="212" text-anchor="middle" fill="#57606a">{number * step // 1000} µs</text>']
    parts.append('<text x="12" y="238" font-size="11" fill="#57606a">0: the supervisor orders the stop. Red: what the guest missed.</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="bench-trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handovers", type=int, default=100, metavar="N", help="how many, and as many again with every ioctl (100)")
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / "docs", help="where to write (docs)")
    options = parser.parse_args()
    processes.adopt_orphans()
    try:
        about, handovers = collect(options.handovers)
    except kernel_trace.Unavailable as why:
        sys.exit(f"bench-trace: the kernel's tracing cannot be used here: {why}")
    if not handovers[False] or not handovers[True]:
        sys.exit("bench-trace: in no handover was everything seen")
    from bench import commit
    for name, content in (("performance.md", page(about, options.handovers, handovers[False], handovers[True], commit())), ("performance.svg", picture(handovers[False]))):
        fresh = options.directory / f".{name}.new"
        fresh.write_text(content)
        os.replace(fresh, options.directory / name)
        print(f"written: {options.directory / name}")


if __name__ == "__main__":
    main()
