"""The charts of layers and of weights, as SVG by hand: no library, no network, text that stays text."""

import math
from collections.abc import Mapping, Sequence

from lowbit.measurement.details import Histogram, LayerRow
from lowbit.measurement.results import LayerCostRow, Row
from lowbit.reports import units
from lowbit.reports.markup import Markup, element
from lowbit.reports.svg import LETTER, WIDE, cut, every, line, linear_ticks, short, svg, text, tooltip

WORST_DB, BEST_DB = 5.0, 45.0


def layer_errors(rows: Sequence[Row], width: float) -> Markup:
    """SQNR of every layer (columns, in execution order) in every file (rows); the darker, the more was lost."""
    names = max(len(row.name) for row in rows)
    left, top, cell = min(0.34 * width, 14 + LETTER * names), 22.0, 24.0 if width == WIDE else 20.0
    columns = max(len(row.details.layers) for row in rows)
    step = (width - left - 2) / columns
    height = top + cell * len(rows) + 26
    parts: list[Markup] = [text(left, 12, "layer, in order of execution", "axis")]
    for place, row in enumerate(rows):
        y = top + place * cell
        parts.append(text(left - 8, y + cell / 2 + 4, cut(row.name, left - 10), "label end"))
        for i, layer in enumerate(row.details.layers):
            where = {
                "x": left + i * step,
                "y": y + 1,
                "width": max(0.4, step - (1 if step > 4 else 0)),
                "height": cell - 2,
            }
            parts.append(element("rect", {**where, **_shade(layer)}, tooltip(_layer_hint(i, row, layer))))
    for tick in {1, *range(every(columns, width), columns + 1, every(columns, width))}:
        parts.append(text(left + (tick - 0.5) * step, top + cell * len(rows) + 15, str(tick), "tick mid"))
    return svg(width, height, "Signal to quantization noise of every layer in every file", parts)


def layer_costs(layers: Sequence[LayerCostRow], row: Row | None, width: float) -> Markup:
    """MACs and weight bytes of every layer, one above the other; `row` draws its bytes inside those of float."""
    left, panel, gap, top = 44.0, 118.0, 44.0, 24.0
    step = (width - left - 2) / max(1, len(layers))
    height = top + 2 * panel + gap + 24
    inside = {layer.name: layer.bytes for layer in row.details.layers} if row else {}
    parts: list[Markup] = []
    macs, sizes = [layer.macs for layer in layers], [layer.weight_bytes for layer in layers]
    second = "weight bytes, float" + (f" and {row.name} (solid)" if row else "")
    for base, values, title, word in (
        (top + panel, macs, "MACs for one image", units.amount),
        (top + 2 * panel + gap, sizes, second, units.size),
    ):
        peak = max(1, *values)
        parts.append(text(0, base - panel - 10, title, "axis"))
        for tick in linear_ticks(0, peak, 4)[1:]:
            y = base - (panel - 14) * tick / peak
            parts += [line(left, y, width, y, "grid"), text(left - 6, y + 4, short(word(tick)), "tick end")]
        parts.append(line(left, base, width, base, "rule"))
        bytes_panel = values is sizes
        for i, (layer, value) in enumerate(zip(layers, values, strict=True)):
            x, wide = left + i * step, max(0.5, step - (2 if step > 6 else 0.5))
            hint = (
                f"{i + 1} {layer.name} ({layer.op}): {units.amount(layer.macs)} MACs, {units.size(layer.weight_bytes)}"
            )
            kind = "column soft" if bytes_panel and inside else "column"
            parts.append(_column(x, base, wide, (panel - 14) * value / peak, kind, hint))
            if bytes_panel and layer.name in inside:
                mine = inside[layer.name]
                tall = (panel - 14) * min(value, mine) / peak
                parts.append(_column(x, base, wide, tall, "column", f"{hint}; here {units.size(mine)}"))
        top_one = max(range(len(values)), key=lambda i: values[i])
        end = left + top_one * step > width / 2
        share = f"{cut(layers[top_one].name, 0.6 * width)}: {values[top_one] / max(1, sum(values)):.0%}"
        at = left + (top_one + (1 if end else 0)) * step
        parts.append(text(at, base - panel + 10, share, "label end" if end else "label"))
    for tick in {1, *range(every(len(layers), width), len(layers) + 1, every(len(layers), width))}:
        parts.append(text(left + (tick - 0.5) * step, height - 8, str(tick), "tick mid"))
    return svg(width, height, "Multiply-accumulates and bytes of every layer", parts)


def weight_histogram(histogram: Histogram) -> Markup:
    """Float weights (area, height is the square root of the count) and the values that replace them (lines)."""
    width, height, base = 280.0, 112.0, 84.0
    # A code book that was fitted to what the layer computes may reach beyond the weights.
    book = histogram.code_book or ()
    low, high = min((histogram.edges[0], *book)), max((histogram.edges[-1], *book))
    span = high - low or 1.0

    def x(value: float) -> float:
        return width * (value - low) / span

    peak = math.sqrt(max(1, *histogram.counts))
    steps = "".join(
        f"V{base - (base - 6) * math.sqrt(count) / peak:.1f}H{x(edge):.1f}"
        for count, edge in zip(histogram.counts, histogram.edges[1:], strict=True)
    )
    parts: list[Markup] = [
        element("path", {"d": f"M{x(histogram.edges[0]):.1f} {base:g}{steps}V{base:g}z", "class": "area"})
    ]
    if book:
        lines = "".join(f"M{x(v):.1f} {base - 62 if len(book) <= 32 else base - 40:g}V{base:g}" for v in book)
        weight = "book" if len(book) <= 32 else "book fine"
        parts.append(element("path", {"d": lines, "class": weight}))
        parts.append(element("path", {"d": "".join(f"M{x(v):.1f} {base:g}v6" for v in book), "class": weight}))
    parts.append(line(0, base, width, base, "rule"))
    parts += [text(0, 106, f"{low:.3g}", "tick"), text(width, 106, f"{high:.3g}", "tick end")]
    if low < 0 < high and 40 < x(0) < width - 40:
        parts.append(text(x(0), 106, "0", "tick mid"))
    return svg(width, height, f"Weights of {histogram.tensor}", parts)


def ramp() -> Markup:
    """What the shades of `layer_errors` mean."""
    shades = [element("i", {"style": f"opacity:{_opacity(1 - i / 9)}"}) for i in range(10)]
    ends = f"{WORST_DB:.0f} dB or less", f"{BEST_DB:.0f} dB or more · outlined: exact"
    return element("div", {"class": "scale"}, ends[0], element("span", {"class": "ramp"}, *shades), ends[1])


def _opacity(lost: float) -> float:
    return round(0.06 + 0.94 * math.pow(min(1.0, max(0.0, lost)), 1.3), 2)


def _shade(layer: LayerRow) -> Mapping[str, str | float]:
    if layer.sqnr_db is None and not layer.mse:
        return {"class": "cell exact"}
    lost = 1.0 if layer.sqnr_db is None else 1 - (layer.sqnr_db - WORST_DB) / (BEST_DB - WORST_DB)
    return {"class": "cell", "fill-opacity": _opacity(lost)}


def _layer_hint(index: int, row: Row, layer: LayerRow) -> str:
    if layer.sqnr_db is not None:
        state = f"{layer.sqnr_db:.1f} dB, {layer.scheme or f'{layer.bits:.3g} bits'}"
    else:
        state = f"exact{f', stays float: {layer.stays_float}' if layer.stays_float else ''}"
    return f"{row.name}, layer {index + 1} {layer.name}: {state}"


def _column(x: float, base: float, width: float, height: float, kind: str, hint: str) -> Markup:
    return element("rect", {"x": x, "y": base - height, "width": width, "height": height, "class": kind}, tooltip(hint))
