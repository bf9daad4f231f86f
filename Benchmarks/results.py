"""What is written of a run: JSON, tables, the chart, and a line in the history."""
import json
import math

from figures import duration, ratio, table

HEAD = ["1 vCPU, 64 MiB", "÷ Baton", "÷ Baton by the kernel", "guest p50", "p25 to p75", "p99", "max", "exit → KVM_RUN p50", "largest gap around it p50", "control p50", "whole p50", "n"]


def compare_rows(result):
    """Ratios first."""
    compare = result.get("compare", {})
    baton = compare.get("Baton", {}).get("summary") or {"gap": {}, "kernel": {}}
    ours, kernel = baton["gap"].get("p50"), baton["kernel"].get("p50")
    rows = []
    for label, found in compare.items():
        s = found.get("summary")
        if not s or not s["committed"]:
            rows.append([label, "MISSING: " + (found.get("missing") or found.get("failed") or "nothing was measured"), *[""] * (len(HEAD) - 2)])
            continue
        gap, control = s["gap"], s["control"]
        name = label + (f" (ended early: {found['failed']})" if found.get("failed") else "")
        rows.append([name, ratio(gap["p50"], ours), ratio(s["kernel"]["p50"], kernel), duration(gap["p50"]), f"{duration(gap['p25'])} to {duration(gap['p75'])}",
                     duration(gap["p99"]), duration(gap["max"]), duration(s["kernel"]["p50"]),
                     duration(s["since_prepared"]["p50"]), duration(control["p50"]) if control["count"] else "–", duration(s["total"]["p50"]), str(s["committed"])])
    return rows


def goal_rows(result):
    return [[row["what"], row["goal"], row["figure"], row["stands"]] for row in result["goals"]]


GOAL_HEAD = ["goal", "", "here", "stands"]


def text(result):
    """For the terminal."""
    host = result["host"]
    lines = [table(HEAD, compare_rows(result)), "", table(GOAL_HEAD, goal_rows(result)), ""]
    for name, found in result["rows"].items():
        lines += [f"MISSING {name}, {key}: {value}" for key, value in found.items() if key.endswith("missing") and value]
    if host["busy_before"] > 0.1:
        lines.append(f"note: the host was {host['busy_before']:.0%} busy with other things before this began")
    if "no_tracepoints" in host:
        lines.append(f"note: no figures from the kernel: {host['no_tracepoints']}")
    return "\n".join([*lines, f"{result['seconds']} s"])


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])


def about(result):
    host = result["host"]
    busy = "; not to be trusted: a busy host lengthens every stop, long ones most" if host["busy_before"] > 0.1 else ""
    return (f"{result['date'][:10]}, {result['commit']}; {host['cpus']} CPUs, {host['processor']}, Linux {host['kernel']}; "
            f"host {host['busy_before']:.0%} busy with other things before, {host.get('steal', 0):.1%} stolen{busy}")


# The chart: a bar per peer on a logarithmic scale, to the median, with a line to the 99th percentile.

COLOURS = {"Baton": "#1f6feb", "the floor": "#8b949e"}
WIDTH, LEFT, TOP, STEP = 760, 210, 44, 34


def chart(result):
    bars = [(label, found["summary"]["gap"]) for label, found in result["compare"].items() if found.get("summary", {}).get("committed")]
    bars = [(label, gap) for label, gap in bars if gap["p50"]]
    low = 10 ** math.floor(math.log10(min(gap["p50"] for _, gap in bars) / 1.5))
    high = 10 ** math.ceil(math.log10(max(gap["p99"] for _, gap in bars)))

    def x(value):
        return LEFT + (WIDTH - LEFT - 90) * (math.log10(max(value, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))

    bottom = TOP + STEP * len(bars)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 40}" font-family="sans-serif" font-size="13">',
             f'<rect width="{WIDTH}" height="{bottom + 40}" fill="white"/>',
             '<text x="12" y="22" font-size="15">What the guest misses: largest gap in its own TSC, median and 99th percentile</text>']
    tick = low
    while tick <= high:
        parts.append(f'<line x1="{x(tick):.1f}" y1="{TOP - 8}" x2="{x(tick):.1f}" y2="{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#57606a">{duration(tick).replace(".00", "")}</text>')
        tick *= 10
    for number, (label, gap) in enumerate(bars):
        y = TOP + STEP * number
        colour = COLOURS.get(label, "#cf222e")
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{label}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{max(1, x(gap["p50"]) - LEFT):.1f}" height="22" fill="{colour}"/>',
            f'<line x1="{x(gap["p50"]):.1f}" y1="{y + 11}" x2="{x(gap["p99"]):.1f}" y2="{y + 11}" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{x(gap["p99"]) + 6:.1f}" y="{y + 16}">{duration(gap["p50"])}</text>']
    parts.append(f'<text x="12" y="{bottom + 34}" font-size="11" fill="#57606a">{result["date"][:10]}, {result["commit"]}, '
                 f'{result["host"]["cpus"]} CPUs, {result["host"]["busy_before"]:.0%} busy with other things before</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def history(directory):
    """One line for each run that is kept, newest first; what each is against the one before."""
    runs = sorted((json.loads(path.read_text()) for path in directory.glob("*.json")), key=lambda run: run["date"])
    rows, before = [], None
    for run in runs:
        compare = run.get("compare", {})
        p50 = {label: found["summary"]["gap"]["p50"] for label, found in compare.items() if found.get("summary", {}).get("committed")}
        ours, floor = p50.get("Baton"), p50.get("the floor")
        newest = next((value for label, value in reversed(p50.items()) if "cpr-transfer" in label), None)
        share = None if not ours or not floor else ours / floor
        change = "–" if before is None or share is None else f"{share / before - 1:+.0%}"
        rows.insert(0, [run["date"][:10], run["commit"], duration(ours), ratio(ours, floor), change, ratio(ours, newest),
                        f"{sum(row['stands'] == 'met' for row in run['goals'])} of {len(run['goals'])}"])
        before = share or before
    return markdown(["date", "commit", "blackout p50", "÷ floor", "against the run before", "÷ newest cpr-transfer", "goals met"], rows)


def slender(result):
    """The results as they are kept: of a sample only what the guest and the kernel saw."""
    kept = json.loads(json.dumps(result))
    for found in kept.get("compare", {}).values():
        for name in ("samples", "control"):
            if name in found:
                found[name] = [[sample.get("stop_gap"), sample.get("kernel")] if isinstance(sample, dict) else sample for sample in found[name]]
    return kept


def path_of(directory, result):
    """Where a run is kept: the day's latest of a commit takes the place of those before, and of no other commit's."""
    stem = result["date"][:10] + ("-long" if result["long"] else "")
    path, number = directory / f"{stem}.json", 1
    while path.exists() and json.loads(path.read_text())["commit"] != result["commit"]:
        number += 1
        path = directory / f"{stem}-{number}.json"
    return path


def write(result, root):
    """Everything that is kept of a run; the paths."""
    directory = root / "bench/results"
    directory.mkdir(parents=True, exist_ok=True)
    data = path_of(directory, result)
    data.write_text(json.dumps(slender(result), ensure_ascii=False, separators=(",", ":")) + "\n")
    written = [data]
    if result.get("compare"):
        svg = directory / "blackout.svg"
        svg.write_text(chart(result))
        page = directory / "README.md"
        page.write_text(
            "# Figures\n\nWritten by `make bench`; [docs/benchmark.md](../../docs/benchmark.md) says what they are.\n\n"
            f"{about(result)}\n\n{markdown(HEAD, compare_rows(result))}\n\n## Goals\n\n{markdown(GOAL_HEAD, goal_rows(result))}\n\n"
            f"## Runs\n\n{history(directory)}\n")
        written += [svg, page, *into_readme(result, root / "README.md")]
    return written


BEGIN, END = "<!-- make bench writes from here -->\n", "<!-- to here -->\n"


def into_readme(result, path):
    """The chart and a short table between two marks."""
    before, mark, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        return []
    rows = [row[:7] for row in compare_rows(result)]
    path.write_text(f"{before}{BEGIN}![What the guest misses](bench/results/blackout.svg)\n\n{markdown(HEAD[:7], rows)}\n\n{about(result)}\n{END}{after}")
    return [path]
