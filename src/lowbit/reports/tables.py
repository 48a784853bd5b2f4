"""Tables that fit the terminal: a row is one line, and what is too long is cut in the middle, where names say least."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lowbit.printable import printable
from lowbit.reports.console import Console

ELLIPSIS = "…"
GAP = 2  # cells between two columns
FEWEST = 8  # cells that a column is never cut below
TAILS = (0.6, 0.5, 0.4, 0.3, 0.7, 0.2, 0.8)  # shares of a name that is cut which its end may get, the usual one first


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        head: above it.
        right: for numbers, which stand at the right.
        cut: whether long cells may be cut in the middle.
    """

    head: str
    right: bool = False
    cut: bool = False


def words(head: str) -> Column:
    """A column of names or words, which may be cut."""
    return Column(head, cut=True)


def numbers(head: str) -> Column:
    """A column of numbers."""
    return Column(head, right=True)


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, *, total: bool = False) -> Table:
    """A table of at most `width` cells, as far as cutting words allows; the widest columns are cut first.

    Args:
        columns: of the table.
        rows: a text for each column.
        width: cells of a line.
        total: whether the last row is a sum of the others.
    """
    rows = [[printable(cell) for cell in row] for row in rows]  # before it is measured
    sizes = [
        max([cell_len(column.head), *(cell_len(row[place]) for row in rows)]) for place, column in enumerate(columns)
    ]
    room = width - GAP * (len(columns) - 1)
    cut = [place for place, column in enumerate(columns) if column.cut]
    rest = room - sum(size for place, size in enumerate(sizes) if place not in cut)
    for place, size in zip(cut, _shared(rest, [sizes[place] for place in cut]), strict=True):
        sizes[place] = size
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold",
    )  # fmt: skip
    for column, size in zip(columns, sizes, strict=True):
        made.add_column(column.head, justify="right" if column.right else "left", no_wrap=True, min_width=size)
    tails = [_telling([row[place] for row in rows], size) for place, size in enumerate(sizes)]
    for place, row in enumerate(rows):
        cells = (Text(shortened(cell, size, tail)) for cell, size, tail in zip(row, sizes, tails, strict=True))
        made.add_row(*cells, end_section=total and place == len(rows) - 2)
    return made


def print_pairs(pairs: Iterable[tuple[str, str]], *, console: Console | None = None) -> None:
    """Names, and beside them what they are, in as many lines as that takes."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, what in pairs:
        grid.add_row(Text(name), Text(what))
    (console or Console()).print(grid)


def _shared(room: int, wanted: Sequence[int]) -> list[int]:
    """Cells for each of some columns: what it wants, but for the widest, which share what is left."""
    given = list(wanted)
    waiting = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for done, place in enumerate(waiting):
        given[place] = min(wanted[place], max(min(FEWEST, wanted[place]), room // (len(waiting) - done)))
        room -= given[place]
    return given


def _telling(texts: Sequence[str], room: int) -> float:
    """The share of their ends that leaves most of some texts different from each other once they are cut."""
    return max(TAILS, key=lambda tail: len({shortened(text, room, tail) for text in texts}))


def shortened(text: str, room: int, tail_share: float = TAILS[0]) -> str:
    """A text in at most `room` cells: beginning and end, and … for what is left out between them.

    Args:
        text: printable.
        room: cells.
        tail_share: of what is left that the end gets.
    """
    if cell_len(text) <= room:
        return text
    left = max(0, room - 1)
    tail = _taken(text[::-1], max(1, round(tail_share * left)) if left else 0)[::-1]
    return _taken(text, left - cell_len(tail)) + ELLIPSIS * (room > 0) + tail


def _taken(text: str, room: int) -> str:
    """The beginning of a text that fits into `room` cells."""
    ends = accumulate(cell_len(char) for char in text)
    return text[: sum(end <= room for end in ends)]
