#!/usr/bin/env python3
"""What a handover costs a guest with Baton, with QEMU's cpr-transfer and cpr-exec, and at least; and the other figures that have goals.

The same guest with the same memory on the same machine, one vCPU, pinned; handovers of all of them interleaved in one run, all others paused
meanwhile, with stops in place as a control. Writes bench/results/DATE.json, the tables of bench/results/README.md, the chart and the table
of README.md; everything measured, part by part as it is, to out/bench/bench.json. docs/benchmark.md explains the figures.
"""
import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
import goals  # noqa: E402
import peers  # noqa: E402
import results  # noqa: E402
import rows  # noqa: E402
from blackout import Progress, host, place, processor_times, to_the_end, tracing  # noqa: E402
from figures import spread  # noqa: E402
from support.images import Images  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402

MEMORY = 64


def arguments():
    parser = argparse.ArgumentParser(
        prog="bench", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="examples:\n  bench --rounds 5 --only compare --no-write\n  bench --long")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of the comparison: in each 4 handovers of Baton and of the floor, 1 of each QEMU (20)")
    parser.add_argument("--only", metavar="PART,…", help="only these parts: compare " + " ".join(PARTS))
    parser.add_argument("--long", action="store_true", help="1,000 handovers of Baton, up to 16 GiB and 16 vCPUs, 100 and 1,000 machines: 25 minutes and more")
    parser.add_argument("--machines", type=int, metavar="N", help="how many are upgraded 8 at a time (16)")
    parser.add_argument("--vcpus", type=lambda text: [int(word) for word in text.split(",")], metavar="N,…", help="how many vCPUs the machines of the part vcpus have (1,4)")
    parser.add_argument("--no-write", action="store_true", help="leave bench/results and README.md as they are")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="leave them too; the JSON goes there, not to out/bench/bench.json")
    options = parser.parse_args()
    options.machines = options.machines or (100 if options.long else 16)
    options.vcpus = options.vcpus or ([1, 2, 4, 8, 16] if options.long else [1, 4])
    options.rounds = options.rounds or (255 if options.long else 20)
    options.no_write = options.no_write or bool(options.output)
    options.output = options.output or pathlib.Path(os.environ["BATON_OUT"]) / "bench/bench.json"
    return options


PARTS = {
    "memory": lambda c: rows.memory_sizes(c, [64, 1024, 4096, 16384] if c.long else [64, 1024], 30 if c.long else 15),
    "disks": lambda c: rows.disk_counts(c, [0, 1, 8], 100 if c.long else 20),
    "interrupts": lambda c: rows.interrupts(c, 200),
    "hold": lambda c: rows.io_hold(c, 100 if c.long else 20),
    "vcpus": lambda c: rows.vcpu_counts(c, c.vcpus, 40 if c.long else 24),
    "speed": lambda c: rows.speed_afterwards(c, 10 if c.long else 3),
    "upgrade": lambda c: rows.whole_upgrade(c, 30 if c.long else 8),
    "abort": lambda c: rows.aborts(c, 100 if c.long else 15),
    "worker": rows.private_memory,
    "start": lambda c: rows.cold_starts(c, 20 if c.long else 6),
    "fleet": lambda c: rows.fleet(c, c.machines, 8),
    "thousand": lambda c: rows.fleet(c, 1000, 8, "8MiB") if c.long else {"missing": "in the long form"},
}


def compare(context, rounds):
    """Handovers of everybody in turn: {label: {samples, control, summary} or {missing}}."""
    found, there = {}, {}
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baton-bench-")))
        pinned = peers.pin(1, context.cpus)

        def add(label, make):
            try:
                there[label] = stack.enter_context(make())
                there[label].pause()
                found[label] = {"samples": [], "control": []}
            except (peers.Missing, peers.qemu.Failed, OSError, AssertionError) as why:
                found[label] = {"missing": " ".join(str(why).split())[:300]}

        add("the floor", lambda: peers.Floor(MEMORY, 1, pinned))
        supervisor = stack.enter_context(Supervisor(context.images))
        add("Baton", lambda: context.baton(supervisor, MEMORY, 1))
        for number, (label, command, mode, why) in enumerate(peers.programs_of_qemu()):
            if command:
                add(label, lambda: peers.Qemu(command, mode, directory / f"qemu-{number}", MEMORY, 1, pinned, context.trace))
            else:
                found[label] = {"missing": why}
        for number in range(rounds):
            for label, peer in list(there.items()):
                one_turn(label, peer, found[label], there)
            context.say("handovers of everybody in turn", number + 1, rounds)
    for result in found.values():
        if "samples" in result:
            result["summary"] = summary(result)
    return found


def one_turn(label, peer, result, there):
    try:
        peer.resume()
        time.sleep(0.1)
        for _ in range(peer.per_round):
            result["samples"].append(slim(peer.sample()))
        control = peer.control()
        if control:
            result["control"].append(slim(control))
        peer.pause()
    except (peers.qemu.Failed, peers.Missing, rows.CallFailed, OSError, AssertionError) as why:
        result["failed"] = " ".join(str(why).split())[:300]
        del there[label]


def slim(sample):
    """What of a sample is kept in the results."""
    kept = {key: sample.get(key) for key in ("outcome", "stop_gap", "since_prepared", "kernel", "total", "blackout", "phases", "messages", "unattributed")}
    return {key: value["stopped"] if key == "kernel" and isinstance(value, dict) else value for key, value in kept.items() if value is not None}


def summary(result):
    committed = [sample for sample in result["samples"] if sample["outcome"] == "committed"]
    return {
        "committed": len(committed), "not_committed": len(result["samples"]) - len(committed),
        "gap": spread([sample.get("stop_gap") for sample in committed]), "kernel": spread([sample.get("kernel") for sample in committed]),
        "since_prepared": spread([sample.get("since_prepared") for sample in committed]),
        "total": spread([sample.get("total") for sample in committed]),
        "control": spread([sample.get("stop_gap") for sample in result["control"]]),
        "control_kernel": spread([sample.get("kernel") for sample in result["control"]]),
    }


# What benchmarks write themselves: one that has run does not make the next one measure another program.
GENERATED = ("README.md", "bench/results", "docs/performance.md", "docs/performance.svg")


def commit():
    """What was measured, "-dirty" where files differ from it."""
    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)

    described = git("describe", "--always").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", ".", *(f":(exclude){path}" for path in GENERATED)).returncode
    return described + ("-dirty" if changed else "") if described else "unknown"


def run(options):
    progress, about, began = Progress(), host(), time.monotonic()
    wanted = options.only.split(",") if options.only else ["compare", *PARTS]
    result = {"version": 2, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit(), "long": options.long, "host": about, "rows": {}}
    peers.make_floor()
    with tracing() as (trace, reason), place() as directory:
        times = processor_times()
        context = rows.Context(Images(directory / "images"), trace, peers.host_cpus(), progress.show, options.long, options.machines, options.vcpus)
        if reason:
            about["no_tracepoints"] = reason
        keep(result, options.output)
        if "compare" in wanted:
            result["compare"] = compare(context, options.rounds)
            keep(result, options.output)
        for name, part in PARTS.items():
            if name in wanted:
                try:
                    result["rows"][name] = part(context)
                except (AssertionError, OSError, peers.Missing, peers.qemu.Failed, rows.CallFailed) as why:
                    result["rows"][name] = {"missing": " ".join(str(why).split())[:300] or type(why).__name__}
                keep(result, options.output)
        after = processor_times()
        about["steal"] = round((after["steal"] - times["steal"]) / max(1, after["all"] - times["all"]), 4)
    about["load_after"] = os.getloadavg()[0]
    result["seconds"] = round(time.monotonic() - began)
    result["goals"] = goals.judge(result)
    keep(result, options.output)
    return result


def keep(result, path):
    """What there is so far, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


def main():
    options = arguments()
    result = to_the_end(run, options, f"the parts that were finished are in {options.output}")
    print(results.text(result))
    if not options.no_write:
        for path in results.write(result, ROOT):
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
