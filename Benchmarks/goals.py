"""The goals, and where a run stands: each row is (what, goal, figure, "met", "met as far as measured", "not met" or "not measured")."""
from figures import duration, ratio, size

MS = 1_000_000


BUSY = 0.1


def judge(result):
    """On a host busy with other things a figure says little: a stop collects the more of that the longer it is, which flatters ratios as well."""
    rows = []
    for about in (_blackout, _sizes, _devices, _interrupts, _hold, _speed, _upgrade, _abort, _fleet, _worker, _start):
        rows += about(result)
    if result["host"]["busy_before"] > BUSY:
        rows = [{**row, "stands": row["stands"] + ("" if row["stands"] == "not measured" else ", on a busy host")} for row in rows]
    return rows


def _row(what, goal, figure, met, complete=True):
    """`complete`: all of what the goal speaks of was measured."""
    stands = {True: "met" if complete else "met as far as measured", False: "not met", None: "not measured"}[met]
    return {"what": what, "goal": goal, "figure": figure, "stands": stands}


def _p50(result, *path):
    return _at(result, *path, "p50")


def _at(found, *path):
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _newest_transfer(compare):
    return next((label for label in reversed(list(compare)) if "cpr-transfer" in label and "summary" in compare[label] and " 10." not in label), None)


def _blackout(result):
    compare = result.get("compare", {})
    ours, floor = _p50(compare, "Baton", "summary", "gap"), _p50(compare, "the floor", "summary", "gap")
    newest = _newest_transfer(compare)
    theirs = _p50(compare, newest, "summary", "gap") if newest else None
    what = "blackout p50, 1 vCPU, no devices, guest-seen"
    rows = [
        _row(what, "≤ 0.4 ms", duration(ours), None if ours is None else ours <= 0.4 * MS),
        _row("the same ÷ QEMU 11.1 cpr-transfer", "≤ 0.10", ratio(ours, theirs), None if None in (ours, theirs) else ours <= theirs / 10),
        _row("the same ÷ the floor", "≤ 1.3", ratio(ours, floor), None if None in (ours, floor) else ours <= 1.3 * floor),
    ]
    summary = _at(compare, "Baton", "summary")
    if summary and summary["gap"]["p99"] is not None and summary["control"]["p99"] is not None:
        p99, count = summary["gap"]["p99"], summary["gap"]["count"]
        noise = summary["control"]["p99"] - summary["control"]["p50"]
        cleaned = p99 - noise
        figure = f"{duration(p99)} over {count}, {p99 / ours:.1f} × p50; {cleaned / ours:.1f} × p50 without the control's p99 − p50, {duration(noise)}"
        rows.append(_row("blackout p99, control run subtracted", "≤ 3 × p50 over 1,000", figure, cleaned <= 3 * ours, count >= 1000))
    else:
        rows.append(_row("blackout p99, control run subtracted", "≤ 3 × p50 over 1,000", "–", None))
    return rows


def _sizes(result):
    memory, vcpus = _at(result, "rows", "memory") or {}, _at(result, "rows", "vcpus") or {}
    sizes = [key for key in memory if key.isdigit()]
    figures = {key: _p50(memory, key) for key in sizes}
    values = [value for value in figures.values() if value]
    met = None if len(values) < 2 else max(values) <= 1.3 * figures[sizes[0]]
    figure = ", ".join(f"{key} MiB: {duration(value)}" for key, value in figures.items()) or "–"
    rows = [_row("64 MiB → 16 GiB of touched RAM", "blackout ratio ≤ 1.3", figure + (f"; ratio {max(values) / figures[sizes[0]]:.2f}" if met is not None else ""), met, "16384" in sizes)]
    counts = [key for key in vcpus if key.isdigit()]
    if len(counts) > 1:
        def growth(who):
            first, last = _p50(vcpus, counts[0], who), _p50(vcpus, counts[-1], who)
            return None if None in (first, last) else (last - first) / (int(counts[-1]) - int(counts[0]))
        ours, floor = growth("baton"), growth("floor")
        each = ", ".join(f"{count}: {duration(_p50(vcpus, count, 'baton'))} ({duration(_p50(vcpus, count, 'floor'))})" for count in counts)
        figure = f"{duration(ours)} per vCPU from {counts[0]} to {counts[-1]}, the floor {duration(floor)}; {each}"
        rows.append(_row("1 → 16 halted vCPUs with a tick", "grows no faster than the floor", figure, None if None in (ours, floor) else ours <= floor, "16" in counts))
    else:
        rows.append(_row("1 → 16 halted vCPUs with a tick", "grows no faster than the floor", "–", None))
    return rows


def _devices(result):
    disks = _at(result, "rows", "disks") or {}
    counts = [key for key in disks if key.isdigit()]
    what, goal = "one more virtio device (a disk)", "≤ 20 µs in the blackout"
    if len(counts) < 2:
        return [_row(what, goal, "–", None)]
    values = {key: _p50(disks, key, "stopped") for key in counts}
    each = (values[counts[-1]] - values[counts[0]]) / (int(counts[-1]) - int(counts[0]))
    figure = f"{duration(each)}: " + ", ".join(f"{key} disks {duration(value)}" for key, value in values.items())
    return [_row(what, goal, f"{figure}, by the supervisor", each <= 20_000)]


def _interrupts(result):
    row = _at(result, "rows", "interrupts") or {}
    attach, route = _p50(row, "attach"), _p50(row, "route")
    figure = "–" if attach is None else f"{duration(attach)} to attach {row['vectors']} vectors, {duration(route)} to lead them, which is done before, without posted interrupts; a whole device: `make lab SUITE=vfio-bench`"
    return [_row("one more VFIO device: KVM's share", "≤ 20 µs in the blackout", figure, None if attach is None else attach <= 20_000)]


def _hold(result):
    found = {name: row for name, row in (_at(result, "rows", "hold") or {}).items() if _at(row, "hold", "p99") and _at(row, "request", "p99")}
    failed = sum(len(row.get("failed", ())) for row in (_at(result, "rows", "hold") or {}).values())
    figure = "; ".join(f"{name}: {duration(row['hold']['p99'])}, a request {duration(row['request']['p99'])}" for name, row in found.items()) or "–"
    figure += f"; {failed} handovers failed" if failed else ""
    met = all(row["hold"]["p99"] <= row["request"]["p99"] + 5 * MS for row in found.values()) if found else None
    return [_row("I/O hold p99, busy virtio disk, real KVM", "≤ a request's p99 + 5 ms", figure, met)]


def _speed(result):
    ratios = _at(result, "rows", "speed", "ratio") or {}
    ours, theirs = _p50(ratios, "baton"), _p50(ratios, "qemu")
    figure = "–" if ours is None else f"{ours:.2f}; QEMU {'–' if theirs is None else f'{theirs:.2f}'}"
    return [_row("first walk of 1 GiB after a commit ÷ steady", "≤ 1.05", figure, None if ours is None else ours <= 1.05)]


def _upgrade(result):
    upgrade = _at(result, "rows", "upgrade") or {}
    small, populate, huge = _p50(upgrade, "4KiB", "total"), _p50(upgrade, "4KiB", "populate"), _p50(upgrade, "2MiB", "total")
    limit = None if populate is None else 40 * MS + 1.3 * populate
    return [
        _row("whole upgrade, 1 GiB of 2 MiB pages", "≤ 60 ms", duration(huge) if huge else upgrade.get("2MiB_missing", "–"), None if huge is None else huge <= 60 * MS),
        _row("whole upgrade, 1 GiB of 4 KiB pages", f"≤ 40 ms + 1.3 × populating ({duration(populate)}) = {duration(limit)}", duration(small),
             None if None in (small, limit) else small <= limit),
    ]


def _abort(result):
    found = _at(result, "rows", "abort", "saved_to_running") or {}
    p50, p99 = found.get("p50"), found.get("p99")
    figure = "–" if p50 is None else f"p50 {duration(p50)}, p99 {duration(p99)}, from the checkpoint's being there: the refusal is in it"
    return [_row("abort: failure detected → guest runs", "≤ 1 ms", figure, None if p50 is None else p50 <= MS)]


def _fleet(result):
    found = _at(result, "rows", "fleet") or {}
    took, p99, count = found.get("took"), _at(found, "blackout", "p99"), found.get("machines")
    complete = count == 100 and found.get("committed") == count
    figure = "–" if took is None else f"{found['committed']} of {count}: {duration(took)}, p99 {duration(p99)}, by the supervisor"
    many = _at(result, "rows", "thousand") or {}
    listed, listed_of = (_at(many, "list", "p50"), many.get("machines")) if _at(many, "list") else (_at(found, "list", "p50"), count)
    all_took, all_p99 = many.get("took"), _at(many, "blackout", "p99")
    all_complete = all_took is not None and many.get("committed") == many.get("machines")
    return [
        _row("100 machines upgraded, 8 at a time", "≤ 10 s, p99 blackout ≤ 5 ms", figure, took <= 10_000 * MS and p99 <= 5 * MS if complete else None),
        _row("1,000 small machines upgraded, 8 at a time", "≤ 10 s, p99 blackout ≤ 5 ms", "–" if all_took is None else
             f"{many['committed']} of {many['machines']}: {duration(all_took)}, p99 {duration(all_p99)}, by the supervisor",
             all_took <= 10_000 * MS and all_p99 <= 5 * MS if all_complete else None),
        _row("`baton list` with 1,000 machines", "≤ 50 ms", "–" if listed is None else f"{duration(listed)} with {listed_of}",
             listed <= 50 * MS if listed is not None and listed_of >= 1000 else None),
    ]


def _worker(result):
    found = _at(result, "rows", "worker") or {}

    def total(name):
        return None if name not in found else found[name]["dirty"] + found[name]["page_tables"]
    worker, alone, qemu = total("worker"), total("worker_alone"), total("qemu")
    both = None if total("batond") is None else total("batond") + total("keeper")
    rows = [
        _row("worker's private memory, idle machine of 64 MiB, beside another of its image", "≤ 3 MiB",
             f"{size(worker)}; alone, with the image's only copy, {size(alone)}; QEMU {size(qemu)}", None if worker is None else worker <= 3 << 20),
        _row("supervisor's, keeper and batond, 1 machine", "≤ 12 MiB + 32 KiB", size(both), None if both is None else both <= (12 << 20) + (32 << 10)),
    ]
    for name in ("fleet", "thousand"):
        memory, count = _at(result, "rows", name, "memory"), _at(result, "rows", name, "machines")
        if memory:
            used = sum(memory["batond"]) + sum(memory["keeper"])
            rows.append(_row(f"supervisor's, {count} machines", f"≤ 12 MiB + {count} × 32 KiB", size(used), used <= (12 << 20) + count * (32 << 10)))
    return rows


def _start(result):
    found = _at(result, "rows", "start") or {}
    ours, theirs = _p50(found, "baton"), _p50(found, "qemu")
    figure = "–" if ours is None else f"{duration(ours)}; QEMU {duration(theirs)}"
    return [_row("cold start: `baton run` → first KVM_RUN", "≤ 60 ms", figure, None if ours is None else ours <= 60 * MS)]
