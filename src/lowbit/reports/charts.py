"""The drawn charts of the page, as SVG by hand: no library, no network, text that stays text.

Every chart is drawn twice, for a screen and for a phone, and the style sheet shows the one that fits: scaling one
drawing down would make its letters too small to read. Colors come from classes, so that dark mode and print can differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lowbit.measurement.results import Histogram, LayerCostRow, LayerRow, Row
from lowbit.reports import units
from lowbit.reports.markup import Markup, element, join

WIDE, NARROW = 960.0, 343.0
LETTER = 6.6  # mean width of a letter at 12 px
WORST_DB, BEST_DB = 5.0, 45.0
FAR_BELOW = 0.10  # points that lost more stand at the edge of the plot, named with their value
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A file in the plane of size and quality; quality is a fraction."""

    name: str
    size: float
    quality: float
    low: float | None
    high: float | None
    reference: bool = False


def both(draw: Callable[[float], Markup]) -> Markup:
    """A chart for screens and one for phones."""
    return join([element("div", {"class": "wide"}, draw(WIDE)), element("div", {"class": "narrow"}, draw(NARROW))])


def trade_off(points: Sequence[Point], width: float, *, title: str) -> Markup:
    """Quality against file size (logarithmic), with intervals and the Pareto front."""
    height = 400.0 if width == WIDE else 340.0
    left, right, top, bottom = 40.0, width - 16, 30.0, height - 42
    best = max(p.quality for p in points)
    near = [p for p in points if p.quality >= best - FAR_BELOW]
    floor = min(p.quality if p.low is None else p.low for p in near)
    ceiling = max(p.quality if p.high is None else p.high for p in near)
    pad = max(0.002, 0.06 * (ceiling - floor))
    floor, ceiling = max(0.0, floor - pad * (2.5 if len(near) < len(points) else 1)), min(1.0, ceiling + pad)
    small, large = min(p.size for p in points) / 1.3, max(p.size for p in points) * 1.45

    def x(size: float) -> float:
        return left + (right - left) * math.log(size / small) / math.log(large / small)

    def y(quality: float) -> float:
        return bottom - (bottom - top) * (max(floor, quality) - floor) / max(1e-9, ceiling - floor)

    parts = [_text(0, 12, title, "axis")]
    for tick in linear_ticks(100 * floor, 100 * ceiling, 6):
        parts += [_line(left, y(tick / 100), right, y(tick / 100), "grid"),
                  _text(left - 8, y(tick / 100) + 4, f"{tick:g}", "tick end")]  # fmt: skip
    for tick in log_ticks(small, large):
        parts += [_line(x(tick), bottom, x(tick), bottom + 5, "rule"),
                  _text(x(tick), bottom + 18, _short(units.size(tick)), "tick mid")]  # fmt: skip
    parts += [
        _line(left, bottom, right, bottom, "rule"),
        _text(right, height - 6, "file size, logarithmic", "axis end"),
    ]
    front = pareto(points)
    path = "".join(
        f"M{x(points[i].size):.1f} {y(points[i].quality):.1f}" if place == 0
        else f"H{x(points[i].size):.1f}V{y(points[i].quality):.1f}"
        for place, i in enumerate(front)
    )  # fmt: skip
    parts.append(element("path", {"d": path, "class": "front"}))
    taken: list[Box] = []
    marks: list[Markup] = []
    for i, p in enumerate(points):
        px, py = x(p.size), y(p.quality)
        kind = "reference" if p.reference else "on" if i in front else "off"
        hint = f"{p.name}: {units.percent(p.quality)} % ({units.interval(p.low, p.high)}), {units.size(p.size)}"
        if p.quality < floor:
            shape = element("path", {"d": f"M{px - 5:.1f} {py - 9:.1f}h10l-5 8z", "class": f"dot {kind}"}, _title(hint))
        else:
            shape = element("circle", {"cx": px, "cy": py, "r": 4.5, "class": f"dot {kind}"}, _title(hint))
            if p.low is not None and p.high is not None:
                parts.append(_line(px, y(p.low), px, y(p.high), f"bar {kind}"))
        marks.append(shape)
        taken.append((px - 7, py - 7, px + 7, py + 7))
    labels = []
    for p in sorted(points, key=lambda p: (-p.quality, p.size)):
        below = p.quality < floor
        text = f"{p.name} {units.percent(p.quality)} %" if below else p.name
        spot = place_label(x(p.size), y(p.quality) - (4 if below else 0), LETTER * len(text), taken,
                           within=(left + 2, top - 6, width, bottom - 2))  # fmt: skip
        taken.append(spot)
        lx, ly = spot[0], spot[3] - 4
        near_x, near_y = min(max(x(p.size), lx), spot[2]), min(max(y(p.quality), spot[1] + 2), spot[3] - 2)
        if math.hypot(near_x - x(p.size), near_y - y(p.quality)) > 12:
            parts.append(_line(x(p.size), y(p.quality), near_x, near_y, "leader"))
        labels.append(_text(lx, ly, text, "label strong" if p.reference else "label"))
    return _svg(width, height, f"{title}, against file size", [*parts, *marks, *labels])


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices, by size, of the points that no other point beats: none is smaller without being worse."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i].size, -points[i].quality)):
        if not front or points[i].quality > points[front[-1]].quality:
            front.append(i)
    return front


def place_label(x: float, y: float, length: float, taken: Sequence[Box], *, within: Box) -> Box:
    """The nearest free box (left, top, right, bottom) for a label of one line beside the point (x, y)."""
    best, cost = (x, y, x, y), math.inf
    for step in range(10):
        reach = 10 + 11 * step
        for angle in (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245):
            cx, cy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            left = x + reach * cx - length * (0.5 - 0.5 * cx)
            top = y + reach * cy - 8
            box = (left, top, left + length, top + 16)
            clash = sum(_overlap(box, other) for other in taken)
            outside = sum(max(0.0, gap) for gap in (
                within[0] - box[0], within[1] - box[1], box[2] - within[2], box[3] - within[3]))  # fmt: skip
            total = 20 * clash + 400 * outside + reach
            if total < cost:
                best, cost = box, total
    return best


def layer_errors(rows: Sequence[Row], width: float) -> Markup:
    """SQNR of every layer (columns, in execution order) in every file (rows); the darker, the more was lost."""
    names = max(len(row.name) for row in rows)
    left, top, cell = min(0.34 * width, 14 + LETTER * names), 22.0, 24.0 if width == WIDE else 20.0
    columns = max(len(row.details.layers) for row in rows)
    step = (width - left - 2) / columns
    height = top + cell * len(rows) + 26
    parts: list[Markup] = [_text(left, 12, "layer, in order of execution", "axis")]
    for line, row in enumerate(rows):
        y = top + line * cell
        parts.append(_text(left - 8, y + cell / 2 + 4, _cut(row.name, left - 10), "label end"))
        for i, layer in enumerate(row.details.layers):
            place = {
                "x": left + i * step,
                "y": y + 1,
                "width": max(0.4, step - (1 if step > 4 else 0)),
                "height": cell - 2,
            }
            parts.append(element("rect", {**place, **_shade(layer)}, _title(_layer_hint(i, row, layer))))
    for tick in {1, *range(every(columns, width), columns + 1, every(columns, width))}:
        parts.append(_text(left + (tick - 0.5) * step, top + cell * len(rows) + 15, str(tick), "tick mid"))
    return _svg(width, height, "Signal to quantization noise of every layer in every file", parts)


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
        parts.append(_text(0, base - panel - 10, title, "axis"))
        for tick in linear_ticks(0, peak, 4)[1:]:
            y = base - (panel - 14) * tick / peak
            parts += [_line(left, y, width, y, "grid"), _text(left - 6, y + 4, _short(word(tick)), "tick end")]
        parts.append(_line(left, base, width, base, "rule"))
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
        share = f"{_cut(layers[top_one].name, 0.6 * width)}: {values[top_one] / max(1, sum(values)):.0%}"
        at = left + (top_one + (1 if end else 0)) * step
        parts.append(_text(at, base - panel + 10, share, "label end" if end else "label"))
    for tick in {1, *range(every(len(layers), width), len(layers) + 1, every(len(layers), width))}:
        parts.append(_text(left + (tick - 0.5) * step, height - 8, str(tick), "tick mid"))
    return _svg(width, height, "Multiply-accumulates and bytes of every layer", parts)


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
    parts.append(_line(0, base, width, base, "rule"))
    parts += [_text(0, 106, f"{low:.3g}", "tick"), _text(width, 106, f"{high:.3g}", "tick end")]
    if low < 0 < high and 40 < x(0) < width - 40:
        parts.append(_text(x(0), 106, "0", "tick mid"))
    return _svg(width, height, f"Weights of {histogram.tensor}", parts)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most`."""
    rough = max(1e-12, (high - low) / most)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(math.floor((high - first * step) / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between two positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def every(columns: int, width: float) -> int:
    """How many columns apart numbers stand so that they do not touch."""
    return next(n for n in (5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if n * width / max(1, columns) > 34)


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
    return element("rect", {"x": x, "y": base - height, "width": width, "height": height, "class": kind}, _title(hint))


def _svg(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    box = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label}
    return element("svg", box, *parts)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return element("text", {"x": x, "y": y, "class": kind}, text)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def _title(text: str) -> Markup:
    return element("title", {}, text)


def _short(text: str) -> str:
    number, _, unit = text.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}".strip()


def _cut(text: str, room: float) -> str:
    most = max(4, int(room / LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _overlap(a: Box, b: Box) -> float:
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * tall if wide > 0 and tall > 0 else 0.0
