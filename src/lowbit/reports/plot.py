"""The chart of a comparison as a value: shown in a notebook, saved as a file, drawn without a plotting library."""

from dataclasses import dataclass
from pathlib import Path

from lowbit.errors import DataError
from lowbit.files import check_ending, write_atomically
from lowbit.measurement.results import Comparison
from lowbit.reports.markup import Markup, element
from lowbit.reports.quality import quality_of
from lowbit.reports.sections import points_of
from lowbit.reports.trade_off import trade_off

WIDTH = 760.0
# Text has the color of what surrounds it, light or dark; no variables and no media queries, which few programs read.
STYLE = """
text{font:12px system-ui,sans-serif;fill:currentColor}.axis,.tick{fill-opacity:.65}.end{text-anchor:end}
.mid{text-anchor:middle}.strong{font-weight:600}.rule{stroke:currentColor;stroke-opacity:.5}
.grid{stroke:currentColor;stroke-opacity:.12}.leader{stroke:currentColor;stroke-opacity:.4;stroke-width:.75}
.front{fill:none;stroke:#3b82c4;stroke-width:1.5;stroke-opacity:.6}.dot{stroke:#3b82c4;stroke-width:1.5;fill:none}
.dot.on{fill:#3b82c4}.dot.off{stroke:currentColor;stroke-opacity:.6}.dot.reference{fill:currentColor;stroke:none}
.bar{stroke:#3b82c4;stroke-width:1.5;stroke-opacity:.45}.bar.off,.bar.reference{stroke:currentColor;stroke-opacity:.3}
"""


@dataclass(frozen=True)
class Plot:
    """A drawing. In a notebook it shows itself as the last value of a cell.

    Attributes:
        title: what is drawn.
        svg: the drawing as text.
    """

    title: str
    svg: str

    def __repr__(self) -> str:
        return f"<Plot of {self.title}: show it in a notebook, or save it as .svg>"

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="max-width:{WIDTH:g}px">{self.svg}</div>'

    def save(self, path: Path | str) -> Path:
        """Write the drawing as an .svg file, whole or not at all.

        Raises:
            OutputError: its name does not end in .svg, the folder is not writable, or the disk is full.
        """
        check_ending(path, (".svg",))
        return write_atomically(path, self.svg)


def plot(comparison: Comparison) -> Plot:
    """What the task measures against file size, with intervals and the Pareto front.

    Raises:
        DataError: fewer than two files have both.
    """
    quality, points = quality_of(comparison) if comparison.rows else None, points_of(comparison)
    if quality is None or len(points) < 2:
        raise DataError(
            "there is nothing to draw: fewer than two files have a size and a figure.",
            remedy="Compare several files, with labels or without.",
        )
    drawn = trade_off(points, WIDTH, title=quality.title, scale=quality.scale)
    start, _, rest = drawn.partition(">")
    box = f'xmlns="http://www.w3.org/2000/svg" width="100%" style="max-width:{WIDTH:g}px"'
    whole = f"{start.replace('<svg', f'<svg {box}', 1)}>{element('style', {}, Markup(_within(STYLE)))}{rest}"
    return Plot(f"{quality.word} against file size", whole)


def _within(style: str) -> str:
    """The rules for drawings of lowbit only: a style sheet in a page holds for all of the page."""
    rules = (rule.partition("{") for rule in style.replace("\n", "").split("}") if rule)
    return "".join(
        f"{','.join(f'.lowbit-plot {name}' for name in names.split(','))}{{{body}}}" for names, _, body in rules
    )
