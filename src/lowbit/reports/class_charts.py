"""The charts of a classifier's answers: which class is taken for which, and confidence beside accuracy."""

from collections.abc import Sequence

from lowbit.measurement.details import ByClass
from lowbit.reports.markup import Markup, element
from lowbit.reports.svg import LETTER, cut, line, svg, text, tooltip

MOST_CLASSES = 20  # that a matrix shows
LARGEST, SMALLEST = 49.0, 13.0  # cells
SIDE = 176.0  # of a reliability diagram


def confusion_matrix(counts: ByClass, names: Sequence[str], who: str) -> Markup:
    """Labels as rows, answers as columns; the darker, the larger the share of the row. The diagonal is right."""
    size = len(counts.images)
    cells = {(each.label, each.answer): each.images for each in counts.confusions}
    cells |= {(label, label): right for label, right in enumerate(counts.right)}
    left = 12 + min(96.0, LETTER * max(map(len, names)))
    cell = min(LARGEST, max(SMALLEST, (250 - left) / size))
    width, top = left + cell * size + 2, 22.0
    numbered = cell >= 24
    parts: list[Markup] = [text(left, 12, "answered as", "axis")]
    for label in range(size):
        y = top + label * cell
        parts.append(text(left - 8, y + cell / 2 + 4, cut(names[label], left - 8), "tick end"))
        if numbered:
            middle = left + (label + 0.5) * cell
            parts.append(text(middle, top + size * cell + 15, cut(names[label], cell + 8), "tick mid"))
        for answer in range(size):
            count = cells.get((label, answer), 0)
            share = count / counts.images[label] if counts.images[label] else 0.0
            x, kind = left + answer * cell, "right" if label == answer else "wrong"
            hint = f"{who}: {count:,} of {counts.images[label]:,} {names[label]} answered as {names[answer]}"
            mark = [element("rect", {
                "x": x + 1, "y": y + 1, "width": cell - 2, "height": cell - 2, "class": f"hit {kind}",
                "fill-opacity": round(0.06 + 0.94 * share, 2) if count else 0.05,
            }, tooltip(f"{hint} ({share:.1%})"))]  # fmt: skip
            if numbered and count:
                shade = "count over" if share > 0.55 else "count"
                mark.append(text(x + cell / 2, y + cell / 2 + 4, f"{count:,}", f"{shade} mid"))
            parts += mark
    height = top + size * cell + (20 if numbered else 4)
    return _tile(svg(width, height, f"Confusion matrix of {who}", parts), width)


def reliability(counts: ByClass, who: str) -> Markup:
    """Accuracy of each bin of confidence as a column, on the diagonal where the two agree; below, how many images."""
    left, top, below = 34.0, 8.0, 34.0
    width, height = left + SIDE + 4, top + SIDE + below + 42
    floor, base = top + SIDE, top + SIDE + below + 6
    most = max((each.images for each in counts.bins), default=1)
    parts: list[Markup] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = floor - SIDE * tick, left + SIDE * tick
        parts += [line(left, y, left + SIDE, y, "grid"), text(left - 6, y + 4, f"{100 * tick:g}", "tick end")]
        if tick in (0.0, 0.5, 1.0):
            parts.append(text(x, base + 15, f"{100 * tick:g}", "tick end" if tick == 1.0 else "tick mid"))
    for each in counts.bins:
        x, wide = left + SIDE * each.low + 1, SIDE * (each.high - each.low) - 2
        share = each.right / each.images
        sure = each.confidence
        low, high = floor - SIDE * max(share, sure), floor - SIDE * min(share, sure)
        hint = (
            f"{who}, confidence {each.low:.0%} to {each.high:.0%}: {each.images:,} images, {share:.1%} right, "
            f"{each.confidence:.1%} confident in the mean"
        )
        few = " few" if each.images < 10 else ""
        parts += [
            element("rect", {"x": x, "y": high, "width": wide, "height": floor - high, "class": f"column{few}"}),
            element("rect", {"x": x, "y": low, "width": wide, "height": high - low,
                             "class": f"{'over' if sure > share else 'under'}-confident{few}"}),
            element("rect", {"x": x, "y": base - below * each.images / most, "width": wide,
                             "height": max(0.5, below * each.images / most), "class": "column soft"}),
            element("rect", {"x": x - 1, "y": top, "width": wide + 2, "height": base - top, "class": "touch"},
                    tooltip(hint)),
        ]  # fmt: skip
    parts += [
        line(left, floor, left + SIDE, top, "mark-line"),
        line(left, floor, left + SIDE, floor, "rule"),
        line(left, base, left + SIDE, base, "rule"),
        text(left + SIDE / 2, base + 32, "confidence, %", "axis mid"),
    ]
    return _tile(svg(width, height, f"Accuracy by confidence of {who}", parts), width)


def _tile(drawing: Markup, width: float) -> Markup:
    """A drawing in its own size, so that letters are as large in every tile."""
    return element("div", {"style": f"max-width:{width:.0f}px"}, drawing)
