"""A chart as a small SVG file: axes, lines, points, bars and words."""

import math
from collections.abc import Iterable, Sequence
from html import escape

BLUE, ORANGE, GREEN, GRAY, INK = "#2563eb", "#c2410c", "#0f766e", "#64748b", "#0f172a"
Point = tuple[float, float]


class Plot:
    """One pair of axes.

    Args:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        labels: what the axes show.
        log: which axes are logarithmic: "", "x", "y" or "xy".
        size: width and height of the whole.
    """

    def __init__(self, x: Point, y: Point, labels: tuple[str, str], log: str = "", size: Point = (640, 320)) -> None:
        self.ranges, self.log, self.size = (x, y), log, size
        self.parts: list[str] = []
        self.left, self.bottom = 78.0, size[1] - 46
        self._axes(labels)

    def at(self, x: float, y: float) -> Point:
        """Where a point is, in pixels."""
        shares = []
        for name, value, (low, high) in zip("xy", (x, y), self.ranges, strict=True):
            value, low, high = (math.log(v) for v in (value, low, high)) if name in self.log else (value, low, high)
            shares.append((value - low) / (high - low))
        return self.left + shares[0] * (self.size[0] - 16 - self.left), self.bottom - shares[1] * (self.bottom - 14)

    def _axes(self, labels: tuple[str, str]) -> None:
        (x0, x1), (y0, y1) = self.ranges
        for value in ticks(x0, x1, "x" in self.log):
            x, y = self.at(value, y0)
            self.parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="{INK}"/>')
            self._text(x, y + 17, f"{value:g}", "middle")
        for value in ticks(y0, y1, "y" in self.log):
            x, y = self.at(x0, value)
            self.parts.append(f'<path d="M{x:.1f} {y:.1f}H{self.size[0] - 16:.1f}" stroke="#e2e8f0"/>')
            self._text(x - 7, y + 4, f"{value:g}", "end")
        self.parts.append(f'<path d="M{self.left} 14V{self.bottom}H{self.size[0] - 16}" fill="none" stroke="{INK}"/>')
        self._text((self.left + self.size[0]) / 2, self.size[1] - 10, labels[0], "middle")
        middle = self.bottom / 2
        self.parts.append(
            f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">'
            f"{escape(labels[1])}</text>"
        )

    def _text(self, x: float, y: float, words: str, anchor: str = "start", color: str = INK) -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>')

    def line(self, points: Iterable[Point], color: str = BLUE, dash: str = "", width: float = 2) -> None:
        """A polyline."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashed}/>')

    def points(self, points: Iterable[Point], color: str = BLUE, radius: float = 4, hollow: bool = False) -> None:
        """Circles."""
        fill = f'fill="#fff" stroke="{color}" stroke-width="1.5"' if hollow else f'fill="{color}"'
        for x, y in (self.at(*point) for point in points):
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {fill}/>')

    def bars(self, edges: Sequence[float], heights: Sequence[float], color: str = GRAY) -> None:
        """A histogram."""
        ground = self.at(self.ranges[0][0], self.ranges[1][0])[1]
        for low, high, height in zip(edges, edges[1:], heights, strict=False):
            (left, top), (right, _) = self.at(low, height), self.at(high, height)
            self.parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 0.5):.1f}" '
                f'height="{ground - top:.1f}" fill="{color}"/>'
            )

    def word(
        self, x: float, y: float, words: str, color: str = INK, anchor: str = "start", shift: Point = (0, 0)
    ) -> None:
        """Words at a point, moved by `shift` pixels."""
        left, top = self.at(x, y)
        self._text(left + shift[0], top + shift[1], words, anchor, color)

    def legend(self, entries: Iterable[tuple[str, str]]) -> None:
        """What each color stands for, in the corner at the top on the right."""
        for index, (words, color) in enumerate(entries):
            self._text(self.size[0] - 22, 30 + 18 * index, words, "end", color)

    def svg(self) -> str:
        """The file."""
        return drawing(self.parts, self.size)


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers between two."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 100 else (1,)
        return [
            s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p * 1.0001 and s * 10.0**p <= high * 1.0001
        ]
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * index, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def drawing(parts: Sequence[str], size: Point) -> str:
    """Parts on a white ground."""
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
