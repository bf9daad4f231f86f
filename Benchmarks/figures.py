"""Numbers for people: percentiles, units, tables."""


def percentile(values, share):
    """The smallest of `values` that at least this share of them does not exceed; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def spread(values):
    """Quartiles, p99 and max of the values that are there, and how many these are."""
    there = [value for value in values if value is not None]
    return {**{f"p{share}": percentile(there, share) for share in (25, 50, 75, 99)}, "max": max(there, default=None), "count": len(there)}


def duration(ns):
    """Nanoseconds with three digits that matter and the unit that suits."""
    if ns is None:
        return "–"
    size = abs(ns)
    for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if size >= unit * 0.9995:
            value = ns / unit
            return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f} {name}"
    return f"{ns:.0f} ns"


def size(count):
    """Bytes in KiB or MiB."""
    if count is None:
        return "–"
    return f"{count / 1024:.0f} KiB" if count < 10 << 20 else f"{count / (1 << 20):.1f} MiB"


def ratio(value, reference):
    return f"{value / reference:.2f}" if value is not None and reference else "–"


def table(head, rows):
    """Columns as wide as they need to be, the first to the left, the others to the right."""
    lines = [list(map(str, row)) for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines)
