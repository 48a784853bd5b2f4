"""The section about the time of each layer: of float and of the fastest file as a chart, of all files as a table."""

from collections.abc import Mapping, Sequence

from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units
from lowbit.reports.markup import Markup, element, table
from lowbit.reports.svg import WIDE, both, every, line, linear_ticks, svg, text, tooltip


def time_by_layer(comparison: Comparison) -> Markup:
    """Two columns for each layer, and everything as a table."""
    rows = [row for row in comparison.rows if row.details.layer_us]
    names = [layer.name for layer in comparison.layers if any(layer.name in row.details.layer_us for row in rows)]
    if not names:
        return Markup("")
    first = rows[0]
    others = [row for row in rows[1:] if not comparison.is_reference(row)]
    fastest = min(others, key=_total, default=None)
    drawn = [first] if fastest is None else [first, fastest]
    chart = both(lambda width: layer_time_chart(names, [(row.name, row.details.layer_us) for row in drawn], width))
    colors = ("var(--k-float)", "var(--accent)")
    legend = element(
        "div", {"class": "legend"},
        *(element("span", {}, element("i", {"style": f"background:{color}"}), row.name)
          for row, color in zip(drawn, colors, strict=False)),
    )  # fmt: skip
    alone = f"; its latency, timed by itself, is {units.milliseconds(first.latency_ms)} ms" if first.latency_ms else ""
    total = f"{units.milliseconds(_total(first) / 1e3)} ms"
    words = (
        "By the runtime's own profiler: files in turn, each layer with its activation function, mean of the middle "
        f"half of 30 runs. All kernels of {first.name} together take {total}{alone}."
    )
    summary = element("summary", {}, "All layers, with their times in every file")
    details = element("details", {}, summary, _table(comparison, names, rows))
    return element("figure", {}, chart, legend, element("figcaption", {}, words), details)


def layer_time_chart(names: Sequence[str], files: Sequence[tuple[str, Mapping[str, float]]], width: float) -> Markup:
    """Microseconds of each layer in one or two files, side by side."""
    left, panel, top = 44.0, 150.0 if width == WIDE else 130.0, 26.0
    step, base = (width - left - 2) / len(names), top + panel
    peak = max(1.0, *(times.get(name, 0.0) for _, times in files for name in names))
    parts: list[Markup] = [text(0, 12, "µs for one inference", "axis")]
    for tick in linear_ticks(0, peak, 4)[1:]:
        y = base - (panel - 6) * tick / peak
        parts += [line(left, y, width, y, "grid"), text(left - 6, y + 4, f"{tick:,g}", "tick end")]
    parts.append(line(left, base, width, base, "rule"))
    wide = max(0.4, (step - (2 if step > 6 else 0.4)) / len(files))
    for i, name in enumerate(names):
        known = [f"{file} {times[name]:,.1f} µs" for file, times in files if name in times]
        for place, (_, times) in enumerate(files):
            tall = (panel - 6) * times.get(name, 0.0) / peak
            kind = "column" if place else "column float"
            parts.append(_box(left + i * step + place * wide, base - tall, wide, tall, kind))
        parts.append(_box(left + i * step, top, step, panel, "touch", f"{i + 1} {name}: {', '.join(known)}"))
    for tick in {1, *range(every(len(names), width), len(names) + 1, every(len(names), width))}:
        parts.append(text(left + (tick - 0.5) * step, base + 16, str(tick), "tick mid"))
    return svg(width, base + 22, "Time of each layer", parts)


def _box(x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> Markup:
    where: dict[str, str | float] = {"x": x, "y": y, "width": width, "height": height, "class": kind}
    return element("rect", where, *([tooltip(hint)] if hint else []))


def _table(comparison: Comparison, names: Sequence[str], rows: Sequence[Row]) -> Markup:
    ops = {layer.name: layer.op for layer in comparison.layers}
    lines = [
        (str(i), f"{name} ({ops[name]})", *(_microseconds(row.details.layer_us.get(name)) for row in rows))
        for i, name in enumerate(names, 1)
    ]
    lines.append((units.MISSING, "all other nodes", *(_microseconds(row.details.other_us) for row in rows)))
    heads = ("no.", "layer", *(f"{row.name}, µs" for row in rows))
    return table(heads, lines, text=(1,))


def _microseconds(value: float | None) -> str:
    return units.MISSING if value is None else f"{value:,.1f}"


def _total(row: Row) -> float:
    return sum(row.details.layer_us.values()) + (row.details.other_us or 0.0)
