"""The figures of the page that are plain HTML: bars, the size ledger, histograms and example images.

Lengths are percentages, so that they fit every screen without being drawn twice.
"""

import base64
import binascii
from collections.abc import Sequence

from lowbit.measurement.details import Example
from lowbit.measurement.results import Row
from lowbit.reports import units
from lowbit.reports.charts import weight_histogram
from lowbit.reports.markup import Markup, element, join, table

# kind in the ledger -> (name, color); other kinds count as other constants.
KINDS = {
    "float_weights": ("float weights", "--k-float"),
    "codes": ("codes", "--k-codes"),
    "code_books": ("code books", "--k-books"),
    "scales": ("scales", "--k-scales"),
    "zero_points": ("zero points", "--k-zero"),
    "biases": ("biases", "--k-bias"),
    "constants": ("other constants", "--k-other"),
    "metadata": ("metadata", "--k-meta"),
    "graph": ("graph", "--k-graph"),
    "padding": ("padding", "--k-pad"),
}
TILES = 12
CARDS = 24
PNG_START = b"\x89PNG\r\n\x1a\n"


def latency_bars(rows: Sequence[Row]) -> Markup:
    """Median from zero, the quartiles on it, and float's median as a dashed line."""
    timed = [row for row in rows if row.latency_ms is not None]
    longest = max(max(row.latency_ms or 0, row.latency_high_ms or 0) for row in timed) or 1.0
    lines: list[Markup] = []
    for row in timed:
        time = row.latency_ms or 0.0
        low, high = row.latency_low_ms or time, row.latency_high_ms or time
        fill = "reference fill" if row is rows[0] else "fill"
        spread = f"{_share('left', low / longest)};{_share('width', (high - low) / longest)}"
        marks = [
            element("i", {"class": fill, "style": _share("width", time / longest)}),
            element("i", {"class": "spread", "style": spread}),
        ]
        if rows[0].latency_ms is not None and row is not rows[0]:
            marks.append(element("i", {"class": "mark", "style": _share("left", rows[0].latency_ms / longest)}))
        faster = "" if row is rows[0] or row.latency_ratio is None else f" · {units.ratio(row.latency_ratio)}"
        hint = f"{row.name}: median {time:.3f} ms, quartiles {low:.3f} to {high:.3f} ms"
        lines += [
            element("span", {}, row.name),
            element("span", {"class": "track", "title": hint}, *marks),
            element("span", {}, f"{units.milliseconds(time)} ms", element("span", {"class": "soft"}, faster)),
        ]
    return element("div", {"class": "rows"}, *lines)


def ledger_bars(rows: Sequence[Row]) -> Markup:
    """One bar per file, to the scale of the largest, divided by what its bytes hold; then the same as a table."""
    largest = max(row.file_bytes for row in rows) or 1
    folded = [_folded(row) for row in rows]
    used = [kind for kind in KINDS if any(ledger[kind] for ledger in folded)]
    lines: list[Markup] = []
    for row, ledger in zip(rows, folded, strict=True):
        parts = [
            element("i", {
                "class": "seg", "style": f"{_share('width', ledger[kind] / largest)};background:var({KINDS[kind][1]})",
                "title": f"{row.name}, {KINDS[kind][0]}: {ledger[kind]:,} bytes",
            })
            for kind in used if ledger[kind]
        ]  # fmt: skip
        ratio = "" if row is rows[0] else f" · {units.ratio(row.file_ratio)}"
        lines += [
            element("span", {}, row.name),
            element("span", {"class": "track"}, *parts),
            element("span", {}, units.size(row.file_bytes), element("span", {"class": "soft"}, ratio)),
        ]
    legend = [
        element("span", {}, element("i", {"style": f"background:var({KINDS[kind][1]})"}), KINDS[kind][0])
        for kind in used
    ]
    exact = [(row.name, *(f"{n:,}" for n in (*(ledger[kind] for kind in used), row.file_bytes)))
             for row, ledger in zip(rows, folded, strict=True)]  # fmt: skip
    heads = ("bytes", *(KINDS[kind][0] for kind in used), "file")
    return join([
        element("div", {"class": "rows"}, *lines),
        element("div", {"class": "legend"}, *legend),
        element("details", {}, element("summary", {}, "All bytes, by file"), table(heads, exact)),
    ])  # fmt: skip


def histogram_tiles(rows: Sequence[Row]) -> Markup:
    """Weight histograms with code books: first one tensor in every file, then the next."""
    pairs = [(row, h) for row in rows[1:] for h in row.details.histograms if h.code_book]
    order = list(dict.fromkeys(h.tensor for _, h in pairs))
    pairs.sort(key=lambda item: order.index(item[1].tensor))
    tiles = [
        element("figure", {}, element("figcaption", {}, element("b", {}, row.name),
                f" · {h.tensor} · {len(h.code_book or ())} values"), weight_histogram(h))
        for row, h in pairs[:TILES]
    ]  # fmt: skip
    return element("div", {"class": "tiles"}, *tiles) if tiles else Markup("")


def example_cards(rows: Sequence[Row]) -> Markup:
    """Each image once, with the predictions of float and of the files that disagree; most disputed first."""
    seen: dict[int, list[tuple[Row, Example]]] = {}
    for row in rows:
        for example in row.details.examples:
            seen.setdefault(example.image, []).append((row, example))
    cards = []
    for image, said in sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))[:CARDS]:
        first = said[0][1]
        lines = [
            element("p", {"class": "soft"}, f"image {image}" + (f" · {first.label}" if first.label is not None else ""))
        ]
        lines.append(_verdict("float", first.float_class, first.label))
        answers: dict[str, list[Row]] = {}
        for row, example in said:
            answers.setdefault(example.quantized_class, []).append(row)
        lines += [_verdict(_who(agreeing, rows), answer, first.label) for answer, agreeing in answers.items()]
        source = {"src": f"data:image/png;base64,{first.thumbnail}", "alt": f"image {image}"}
        picture = [element("img", source)] if _is_png(first.thumbnail) else []
        cards.append(element("div", {"class": "card"}, *picture, element("div", {}, *lines)))
    return element("div", {"class": "cards"}, *cards) if cards else Markup("")


def _who(some: Sequence[Row], rows: Sequence[Row]) -> str:
    """Some rows in few words: the recipe, and its engines where not all of them are among the rows."""
    words = []
    for recipe in dict.fromkeys(row.recipe for row in some if not row.emulated):
        every = [row.engine for row in rows if row.recipe == recipe and not row.emulated]
        engines = [row.engine for row in some if row.recipe == recipe and not row.emulated]
        words.append(recipe if len(engines) == len(every) else f"{recipe} ({', '.join(engines)})")
    return ", ".join([*words, *(row.name for row in some if row.emulated)])


def _verdict(who: str, answer: str, label: str | None) -> Markup:
    wrong = label is not None and answer != label
    mark = "" if label is None else " ✗" if wrong else " ✓"
    return element("p", {}, f"{who}: ", element("b", {"class": "wrong" if wrong else "right"}, f"{answer}{mark}"))


def _is_png(text: str) -> bool:
    try:
        return base64.b64decode(text, validate=True).startswith(PNG_START)
    except (binascii.Error, ValueError):
        return False


def _folded(row: Row) -> dict[str, int]:
    ledger = dict.fromkeys(KINDS, 0)
    for kind, size in row.details.ledger.items():
        ledger[kind if kind in KINDS else "constants"] += size
    return ledger


def _share(what: str, share: float) -> str:
    return f"{what}:{100 * min(1.0, max(0.0, share)):.3f}%"
