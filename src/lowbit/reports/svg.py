"""What all charts are drawn with: SVG elements, ticks, and the two widths that every chart is drawn for.

Scaling one drawing down would make its letters too small to read on a phone, so the style sheet shows the one of two
that fits. Colors come from classes, so that dark mode and print can differ.
"""

import math
from collections.abc import Callable, Sequence

from lowbit.reports.markup import Markup, element, join

WIDE, NARROW = 960.0, 343.0
LETTER = 6.6  # mean width of a letter at 12 px
SLIM, BROAD = frozenset("fijlrtI.,:;|!'-()[] /"), frozenset("mwMW@%…—")
Box = tuple[float, float, float, float]  # left, top, right, bottom


def both(draw: Callable[[float], Markup]) -> Markup:
    """A chart for screens and one for phones."""
    return join([element("div", {"class": "wide"}, draw(WIDE)), element("div", {"class": "narrow"}, draw(NARROW))])


def svg(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """A drawing of a size in pixels, with a label for screen readers."""
    box = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label}
    return element("svg", box, *parts)


def text(x: float, y: float, text: str, kind: str) -> Markup:
    """A line of text; `kind` is its class."""
    return element("text", {"x": x, "y": y, "class": kind}, text)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line; `kind` is its class."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def tooltip(text: str) -> Markup:
    """What shows when the mouse rests on an element."""
    return element("title", {}, text)


def short(text: str) -> str:
    """A number with its unit, without trailing zeros."""
    number, _, unit = text.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}".strip()


def cut(text: str, room: float) -> str:
    """Text that fits into `room` pixels."""
    most = max(4, int(room / LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def breadth(text: str) -> float:
    """Pixels that a text takes at 12 px in the letters of any of the style sheet's fonts, at most."""
    return sum(
        5.0 if c in SLIM else 12.0 if c in BROAD or not c.isascii() else 9.2 if c.isupper() else 7.4 for c in text
    )


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
