"""The chart of quality against file size (or latency), with the Pareto front and labels that do not overlap."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowbit.reports import units
from lowbit.reports.markup import Markup, element
from lowbit.reports.quality import PERCENT, Scale
from lowbit.reports.svg import WIDE, Box, breadth, line, linear_ticks, log_ticks, short, svg, text, tooltip


@dataclass(frozen=True)
class Point:
    """A file in the plane of size (or latency) and quality; of values of which smaller ones are better the negative.

    A `link` is followed when the point is clicked.
    """

    name: str
    size: float
    quality: float
    low: float | None
    high: float | None
    reference: bool = False
    link: str = ""


@dataclass(frozen=True)
class Cost:
    """What the chart draws from left to right: its name, and a number of it as text."""

    name: str
    text: Callable[[float], str]


FILE_SIZE = Cost("file size", units.size)
LATENCY = Cost("latency", lambda value: f"{units.milliseconds(value)} ms")


@dataclass(frozen=True)
class Plane:
    """From size (logarithmic) and quality to places on the chart."""

    sizes: tuple[float, float]
    qualities: tuple[float, float]
    box: Box

    def x(self, size: float) -> float:
        """From the left."""
        small, large = self.sizes
        return self.box[0] + (self.box[2] - self.box[0]) * math.log(size / small) / math.log(large / small)

    def y(self, quality: float) -> float:
        """From the top; what lies below the plot is drawn at its lower edge."""
        floor, ceiling = self.qualities
        return self.box[3] - (self.box[3] - self.box[1]) * (max(floor, quality) - floor) / max(1e-9, ceiling - floor)

    def below(self, point: Point) -> bool:
        """Whether a point is too bad for the plot."""
        return point.quality < self.qualities[0]


def trade_off(
    points: Sequence[Point], width: float, *, title: str, scale: Scale = PERCENT, cost: Cost = FILE_SIZE
) -> Markup:
    """Quality against cost (logarithmic), with intervals and the Pareto front."""
    height = 400.0 if width == WIDE else 340.0
    plane = _plane(points, (40.0, 30.0, width - 16, height - 42), scale)
    front = pareto(points)
    path = "".join(
        f"M{plane.x(points[i].size):.1f} {plane.y(points[i].quality):.1f}" if place == 0
        else f"H{plane.x(points[i].size):.1f}V{plane.y(points[i].quality):.1f}"
        for place, i in enumerate(front)
    )  # fmt: skip
    parts = [
        text(0, 12, title, "axis"),
        *_axes(plane, height, scale.factor, cost),
        element("path", {"d": path, "class": "front"}),
    ]
    marks: list[Markup] = []
    for i, point in enumerate(points):
        kind = "reference" if point.reference else "on" if i in front else "off"
        mark = _mark(point, plane, kind, scale, cost)
        marks.append(element("a", {"href": point.link}, mark) if point.link else mark)
        if not plane.below(point) and point.low is not None and point.high is not None:
            x = plane.x(point.size)
            parts.append(line(x, plane.y(point.low), x, plane.y(point.high), f"bar {kind}"))
    leaders, labels = _labels(points, plane, width, scale)
    return svg(width, height, f"{title}, against {cost.name}", [*parts, *leaders, *marks, *labels])


def leaves_out(points: Sequence[Point], scale: Scale) -> bool:
    """Whether some points are too bad for the plot."""
    plane = _plane(points, (0.0, 0.0, 1.0, 1.0), scale)
    return any(plane.below(point) for point in points)


def _plane(points: Sequence[Point], box: Box, scale: Scale) -> Plane:
    """The plane that shows all points but those far below the best."""
    best = max(p.quality for p in points)
    near = [p for p in points if p.quality >= best - scale.far(best)]
    floor = min(p.quality if p.low is None else p.low for p in near)
    ceiling = max(p.quality if p.high is None else p.high for p in near)
    pad = max(scale.room(best), 0.06 * (ceiling - floor))
    least, most = scale.limits()
    qualities = max(least, floor - pad * (2.5 if len(near) < len(points) else 1)), min(most, ceiling + pad)
    return Plane((min(p.size for p in points) / 1.3, max(p.size for p in points) * 1.45), qualities, box)


def _axes(plane: Plane, height: float, factor: float, cost: Cost) -> list[Markup]:
    left, _, right, bottom = plane.box
    parts: list[Markup] = []
    low, high = sorted(factor * end for end in plane.qualities)
    for tick in linear_ticks(low, high, 6):
        y = plane.y(tick / factor)
        parts += [line(left, y, right, y, "grid"), text(left - 8, y + 4, f"{tick:g}", "tick end")]
    ticks = log_ticks(*plane.sizes)
    for tick in ticks if len(ticks) > 2 else linear_ticks(*plane.sizes, 5):
        x = plane.x(tick)
        words = short(cost.text(tick))
        parts += [
            line(x, bottom, x, bottom + 5, "rule"),
            text(min(x, right + 12 - breadth(words) / 2), bottom + 18, words, "tick mid"),
        ]
    return [
        *parts,
        line(left, bottom, right, bottom, "rule"),
        text(right, height - 6, f"{cost.name}, logarithmic", "axis end"),
    ]


def _mark(point: Point, plane: Plane, kind: str, scale: Scale, cost: Cost) -> Markup:
    """A dot, or a triangle at the lower edge."""
    x, y = plane.x(point.size), plane.y(point.quality)
    interval = "" if point.low is None else f" ({units.interval(point.low, point.high)})"
    hint = f"{point.name}: {scale.text(scale.best * point.quality)}{interval}, {cost.text(point.size)}"
    if plane.below(point):
        return element("path", {"d": f"M{x - 5:.1f} {y - 9:.1f}h10l-5 8z", "class": f"dot {kind}"}, tooltip(hint))
    return element("circle", {"cx": x, "cy": y, "r": 4.5, "class": f"dot {kind}"}, tooltip(hint))


def _labels(points: Sequence[Point], plane: Plane, width: float, scale: Scale) -> tuple[list[Markup], list[Markup]]:
    """Names beside their points, and lines to those that had to move away.

    The reference and the front come first; where points crowd, those that find no room show their names on a touch.
    """
    left, top, _, bottom = plane.box
    front = {id(points[i]) for i in pareto(points)}
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in ((plane.x(p.size), plane.y(p.quality)) for p in points)]
    leaders: list[Markup] = []
    labels: list[Markup] = []
    for p in sorted(points, key=lambda p: (not p.reference, id(p) not in front, -p.quality, p.size)):
        below, x, y = plane.below(p), plane.x(p.size), plane.y(p.quality)
        name = f"{p.name} {scale.text(scale.best * p.quality)}" if below else p.name
        spot = place_label(x, y - (4 if below else 0), breadth(name), taken,
                           within=(left + 2, top - 6, width, bottom - 2))  # fmt: skip
        if spot is None:
            continue
        taken.append(spot)
        near_x, near_y = min(max(x, spot[0]), spot[2]), min(max(y, spot[1] + 2), spot[3] - 2)
        if math.hypot(near_x - x, near_y - y) > 12:
            leaders.append(line(x, y, near_x, near_y, "leader"))
        # The box is as wide as the text can be: it stands where it is nearest to the point.
        at, anchor = (spot[2], " end") if spot[2] <= x else (spot[0], "")
        if spot[0] < x < spot[2]:
            at, anchor = (spot[0] + spot[2]) / 2, " mid"
        labels.append(text(at, spot[3] - 4, name, f"label{' strong' if p.reference else ''}{anchor}"))
    return leaders, labels


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices, by size, of the points that no other point beats: none is smaller without being worse."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i].size, -points[i].quality)):
        if not front or points[i].quality > points[front[-1]].quality:
            front.append(i)
    return front


def place_label(x: float, y: float, length: float, taken: Sequence[Box], *, within: Box) -> Box | None:
    """The nearest free box (left, top, right, bottom) for a label of one line beside the point (x, y); None if there is
    no free one within ten lines.
    """
    for step in range(10):
        reach = 10 + 11 * step
        for angle in (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245):
            cx, cy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            left = x + reach * cx - length * (0.5 - 0.5 * cx)
            top = y + reach * cy - 8
            box = (left, top, left + length, top + 16)
            inside = box[0] >= within[0] and box[1] >= within[1] and box[2] <= within[2] and box[3] <= within[3]
            if inside and not any(overlap(box, other) for other in taken):
                return box
    return None


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share an area."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
