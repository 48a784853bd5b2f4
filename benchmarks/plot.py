"""Horizontal bars as a small SVG file, for READMEs: one panel a setting, shortest bar first."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLORS = {"lowbit": "#0f766e", "float": "#94a3b8", "peer": "#c2703d"}
NAMES, BAR, WIDTH, TEXT = 330.0, 16.0, 860.0, 13


@dataclass(frozen=True)
class Bar:
    """One bar; `kind` is a key of `COLORS`, `low` and `high` the quartiles."""

    name: str
    value: float
    low: float
    high: float
    kind: str
    label: str


def bars(panels: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """The SVG text of panels (title, bars)."""
    parts: list[str] = []
    y = 8.0
    for title, given in panels:
        shown = sorted(given, key=lambda bar: bar.value)
        scale = (WIDTH - NAMES - 150) / max((bar.high for bar in shown), default=1.0)
        parts.append(f'<text x="8" y="{y + 14:.0f}" font-weight="600">{escape(title)}</text>')
        y += 24
        for bar in shown:
            middle = y + BAR / 2
            parts += [
                f'<text x="{NAMES - 8:.0f}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(bar.name)}</text>',
                f'<rect x="{NAMES:.0f}" y="{y:.1f}" width="{bar.value * scale:.1f}" height="{BAR - 3:.0f}" '
                f'fill="{COLORS[bar.kind]}"/>',
                f'<path d="M{NAMES + bar.low * scale:.1f} {middle - 1.5:.1f}H{NAMES + bar.high * scale:.1f}" '
                'stroke="#0f172a" stroke-width="1.5"/>',
                f'<text x="{NAMES + bar.high * scale + 6:.1f}" y="{middle + 4.5:.1f}">{escape(bar.label)}</text>',
            ]
            y += BAR + 3
        y += 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {y:.0f}" width="{WIDTH:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="{TEXT}" fill="#0f172a">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
