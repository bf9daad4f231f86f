#!/usr/bin/env python3
"""What a handover costs the guest, phase by phase, beside a stop and resume in place and beside nothing at all.

For each size of touched guest memory and number of vCPUs: handovers that alternate between the two honest images, with no soak. Figures
come from three sides: the guest's own largest TSC gap, the steps the supervisor records (`baton history`), and the kernel's tracepoints.
Prints tables; writes everything measured to out/bench/blackout.json.

The threads of vCPUs are not pinned one by one: machine files have no affinities. --cpus pins the supervisor with all its workers.
"""
import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
from figures import duration, percentile, ratio, size, spread, table  # noqa: E402
from kernel_trace import KernelTrace, Unavailable  # noqa: E402
from measuring import MESSAGES, PARTS, Rig  # noqa: E402
from support import processes, programs  # noqa: E402
from support.images import Images  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402

KERNEL = {
    "order_to_left": "order to stop → out of KVM_RUN",
    "leaving": "completing what was half done",
    "away": "last KVM_RUN → first of the new worker",
    "stopped": "out of KVM_RUN, all in all",
}


def arguments():
    def numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(
        prog="bench", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="examples:\n  bench --quick\n  bench --memory 64 --vcpus 1,2 --handovers 300\n  bench --cpus 1 --vcpus 1 --json")
    parser.add_argument("--handovers", type=int, default=100, metavar="N", help="of each configuration (100)")
    parser.add_argument("--memory", type=numbers, default=[64, 1024], metavar="MIB,…", help="touched guest memory (64,1024)")
    parser.add_argument("--vcpus", type=numbers, default=[1, 2, 4], metavar="N,…", help="vCPUs (1,2,4)")
    parser.add_argument("--cpus", type=numbers, metavar="N,…", help="CPUs on which supervisor and workers may run; all otherwise")
    parser.add_argument("--quick", action="store_true", help="10 handovers, 64 MiB, 2 vCPUs, unless told otherwise")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of tables")
    parser.add_argument("--output", type=pathlib.Path, default=programs.OUT / "bench/blackout.json", metavar="FILE", help="where to write the JSON")
    options = parser.parse_args()
    if options.quick:
        given = " ".join(sys.argv[1:])
        options.handovers = options.handovers if "--handovers" in given else 10
        options.memory = options.memory if "--memory" in given else [64]
        options.vcpus = options.vcpus if "--vcpus" in given else [2]
    return options


class Progress:
    """One line on a terminal, rewritten; a line each tenth elsewhere. On standard error: results go to standard output."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()

    def show(self, text, done, total):
        if self.terminal:
            print(f"\r\033[K{text}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif done % max(1, total // 10) == 0:
            print(f"{text}: {done}/{total}", file=sys.stderr, flush=True)


def processor_times():
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    return {"busy": sum(fields) - fields[3] - fields[4], "steal": fields[7], "all": sum(fields)}


def busy_share(seconds=1.0):
    """How busy the host is with other things, from 0 to 1."""
    before = processor_times()
    time.sleep(seconds)
    after = processor_times()
    return (after["busy"] - before["busy"]) / max(1, after["all"] - before["all"])


def host():
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    clock = pathlib.Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return {
        "kernel": platform.release(), "processor": model, "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "clocksource": clock.read_text().strip(),
        "busy_before": round(busy_share(), 3),
    }


def measure(rig, images, handovers, progress):
    """All events of one configuration, controls in between: what else the host does then spreads over all alike."""
    label = f"{rig.memory_mib} MiB, {rig.vcpus} vCPU{'s' if rig.vcpus > 1 else ''}"
    found = {"memory_mib": rig.memory_mib, "vcpus": rig.vcpus, "handovers": [], "control": [], "idle": []}
    found["memory_before"] = rig.memory()
    times = processor_times()
    for number in range(handovers):
        handover = rig.handover(images[number % 2])
        found["handovers"].append(handover)
        found["control"].append(rig.stop_in_place())
        found["idle"].append(rig.idle(handover.get("total", 100_000_000) / 1e9))
        progress.show(label, number + 1, handovers)
    found["host_steal"] = round((processor_times()["steal"] - times["steal"]) / max(1, processor_times()["all"] - times["all"]), 4)
    found["memory_after"] = rig.memory()
    evidence = rig.machine.evidence
    found["damage"] = evidence.damage
    found["ticks"] = [{"ticker": ticker.name, "lost": ticker.lost, "doubled": ticker.doubled} for ticker in evidence.tickers()]
    found["summary"] = summary(found)
    return found


def summary(found):
    """p50, p99 and max of everything that was measured many times."""
    committed = [handover for handover in found["handovers"] if handover["outcome"] == "committed"]
    stopped = [control for control in found["control"] if control["outcome"] == "resumed"]
    traced = [handover["kernel"] for handover in committed if handover["kernel"]]
    return {
        "committed": len(committed),
        "gap_elsewhere": sum(handover["gap"] != handover["stop_gap"] for handover in committed),
        "gap": spread([handover["gap"] for handover in committed]),
        "stop_gap": spread([handover["stop_gap"] for handover in committed]),
        "blackout": spread([handover["blackout"] for handover in committed]),
        "phases": {name: spread([handover["phases"].get(name) for handover in committed]) for name in PARTS},
        "messages": {name: spread([handover["messages"][name] for handover in committed]) for name, _, _ in MESSAGES},
        "unattributed": spread([handover["unattributed"] for handover in committed]),
        "kernel": {name: spread([stop[name] for stop in traced]) for name in KERNEL} if traced else None,
        "total": spread([handover["total"] for handover in committed]),
        "half_speed_after": spread([handover["half_speed_after"] for handover in committed]),
        "control_stop_gap": spread([control["stop_gap"] for control in stopped]),
        "control_kernel": spread([control["kernel"]["away"] for control in stopped if control["kernel"]]),
        "idle_gap": spread([idle["gap"] for idle in found["idle"]]),
        "beats_per_second": percentile([handover["beats_per_second"] for handover in committed if handover["beats_per_second"]], 50),
    }


def details(found):
    """The table of one configuration."""
    s = found["summary"]

    def row(name, values, level=0, control=None):
        compared = ratio(values["p50"], control["p50"]) if control else ""
        return ["  " * level + name, *(duration(values[key]) for key in ("p50", "p99", "max")), compared]

    rows = [
        row("guest: gap over the stop", s["stop_gap"], 0, s["control_stop_gap"]),
        row("supervisor: stop ordered → first KVM_RUN", s["blackout"]),
        *(row({"running": "run"}.get(name, name), s["phases"][name], 1) for name in PARTS),
        *(row(name, values, 1) for name, values in s["messages"].items()),
        row("unattributed (guest's gap − phases)", s["unattributed"], 1),
    ]
    if s["kernel"]:
        rows += [["kernel", "", "", "", ""], *(row(text, s["kernel"][name], 1) for name, text in KERNEL.items() if name != "stopped")]
        rows += [row(KERNEL["stopped"], s["kernel"]["stopped"], 1, s["control_kernel"])]
    rows += [
        row("control: pause and resume, guest's gap", s["control_stop_gap"]),
        *([row("out of KVM_RUN, by the kernel", s["control_kernel"], 1)] if s["kernel"] else []),
        row("guest: largest gap in the whole upgrade", s["gap"]),
        row("idle: guest's largest gap in as much time", s["idle_gap"]),
        row("whole upgrade", s["total"]), row("half speed again after", s["half_speed_after"]),
    ]
    head = [f"{found['memory_mib']} MiB, {found['vcpus']} vCPUs, {s['committed']} handovers", "p50", "p99", "max", "÷ control"]
    text = table(head, rows)
    if s["gap_elsewhere"]:
        text += f"\nin {s['gap_elsewhere']} of them the guest's largest gap was not over the stop: something kept a vCPU waiting for longer at another time"
    failed = [handover for handover in found["handovers"] if handover["outcome"] != "committed"]
    if failed:
        text += f"\n{len(failed)} were not committed, the first: {failed[0]['reason']}"
    return text


def memory_table(configurations):
    rows = []
    for found in configurations:
        for who in found["memory_before"]:
            before, after = found["memory_before"][who], found["memory_after"][who]
            cells = [f"{size(before[kind])} → {size(after[kind])}" for kind in ("RssAnon", "RssShmem", "Pss")]
            rows.append([f"{found['memory_mib']} MiB, {found['vcpus']} vCPUs: {who}", *cells])
    return table(["memory before → after", "RssAnon", "RssShmem", "Pss"], rows)


def overview(configurations):
    rows = []
    for found in configurations:
        s = found["summary"]
        rows.append([
            f"{found['memory_mib']} MiB, {found['vcpus']} vCPUs", duration(s["stop_gap"]["p50"]), duration(s["stop_gap"]["p99"]),
            duration(s["blackout"]["p50"]), duration(s["blackout"]["p99"]),
            duration(s["kernel"]["stopped"]["p50"]) if s["kernel"] else "–", duration(s["control_stop_gap"]["p50"]),
            ratio(s["stop_gap"]["p50"], s["control_stop_gap"]["p50"]), duration(s["idle_gap"]["p50"]), duration(s["total"]["p50"]),
        ])
    head = ["", "guest p50", "p99", "supervisor p50", "p99", "kernel p50", "control p50", "ratio", "idle p50", "upgrade p50"]
    return table(head, rows)


def notes(about, options, reason):
    found = ["vCPU threads are not pinned: machine files have no affinities"
             + (f"; supervisor and workers run on CPUs {','.join(map(str, options.cpus))}" if options.cpus else "")]
    cpus = len(options.cpus) if options.cpus else about["cpus"]
    crowded = [count for count in options.vcpus if count > cpus]
    if crowded:
        found.append(f"with {' and '.join(map(str, crowded))} vCPUs on {cpus} CPUs, vCPUs wait for each other: gaps hold that too")
    if about["busy_before"] > 0.1:
        found.append(f"the host was {about['busy_before']:.0%} busy with other things before this began: expect larger figures than on a quiet one")
    if reason:
        found.append(f"no figures from the kernel: {reason}")
    return found


def prefix(options):
    """Of the supervisor's command: pinned, and out of reach of the terminal's Ctrl-C, which ends the benchmark and through it all else."""
    return ("setsid", *(("taskset", "-c", ",".join(map(str, options.cpus))) if options.cpus else ()))


@contextlib.contextmanager
def tracing():
    """(the trace or None, why there is none)."""
    try:
        trace = KernelTrace()
    except Unavailable as why:
        yield None, str(why)
        return
    with trace:
        yield trace, None


@contextlib.contextmanager
def place():
    """A directory for images that workers of other users can reach."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="baton-bench-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def to_the_end(run, options, written="nothing was written"):
    """What `run` returns. Ctrl-C, or an end by name, ends it in order, and this program with it, which says what was `written` by then."""
    processes.adopt_orphans()
    # Also where a shell started this with SIGINT ignored, and for whoever ends it by name.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return run(options)
    except KeyboardInterrupt:
        print(f"\ninterrupted: nothing is left behind, {written}", file=sys.stderr)
        sys.exit(130)


def run(options):
    progress, about, configurations = Progress(), host(), []
    with tracing() as (trace, reason), place() as directory:
        images = Images(directory / "images")
        remarks = notes(about, options, reason)
        for memory in options.memory:
            for vcpus in options.vcpus:
                with Supervisor(images, prefix=prefix(options)) as supervisor, Rig(supervisor, memory, vcpus, trace, with_speed=True) as rig:
                    configurations.append(measure(rig, [images.next, images.honest], options.handovers, progress))
                if not options.json:
                    print(details(configurations[-1]) + "\n", flush=True)
    about["load_after"] = os.getloadavg()[0]
    return {"version": 1, "host": about, "notes": remarks, "handovers": options.handovers, "configurations": configurations}


def main():
    options = arguments()
    result = to_the_end(run, options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    fresh = options.output.with_name(options.output.name + ".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(fresh, options.output)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(memory_table(result["configurations"]) + "\n")
    print(overview(result["configurations"]) + "\n")
    for note in result["notes"]:
        print(f"note: {note}")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
