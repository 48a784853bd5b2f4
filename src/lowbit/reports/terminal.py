"""The comparison as a terminal table: as many columns as fit, the most important ones first, no number wrapped."""

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lowbit.measurement.results import Comparison
from lowbit.printable import printable
from lowbit.reports.columns import Column, best_of, columns_of
from lowbit.reports.console import Console
from lowbit.reports.footnotes import complaints, footnotes
from lowbit.reports.tables import shortened

NAME_CELLS = 28
PIPE_CELLS = 120  # where nothing says how wide a line may be
COMPLAINTS = 6
GAP = 2  # cells between two columns


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the table, how it was measured, and what was requested and not given."""
    console = console or Console()
    width = console.width if console.limited else PIPE_CELLS
    console.print(comparison_table(comparison, width=width))
    shown = shown_columns(comparison, width)
    for note in (*footnotes(comparison, [column.name for column in shown]), pointer(shown)):
        console.print(Text(note, style="dim"))
    unmet = complaints(comparison)
    for note in unmet[:COMPLAINTS]:
        console.print(Text.assemble(("! ", "yellow"), note))
    if len(unmet) > COMPLAINTS:
        console.print(Text(f"  and {len(unmet) - COMPLAINTS} more; the report lists all of them.", style="dim"))


def comparison_table(comparison: Comparison, *, width: int) -> Table:
    """The table for a terminal of `width` cells."""
    rows = comparison.rows
    texts = name_columns(comparison)
    columns = shown_columns(comparison, width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for head in texts:
        table.add_column(head, no_wrap=True)
    for column in columns:
        table.add_column(header(column), justify="right", no_wrap=True, min_width=cells(column, comparison))
    quantized = [row for row in rows if not comparison.is_reference(row)]
    best = [best_of(column, quantized) for column in columns]
    for place, row in enumerate(rows):
        tops = [""] * len(columns) if comparison.is_reference(row) else best
        figures = [
            Text(column.cell(row), style="bold green" if top and column.cell(row) == top else "")
            for column, top in zip(columns, tops, strict=True)
        ]
        names = [Text(cells[place], style="" if place else "italic") for cells in texts.values()]
        table.add_row(*names, *figures, end_section=place == 0)
    return table


def name_columns(comparison: Comparison) -> dict[str, list[str]]:
    """What rows are called, by heading, cut to the cells that they may take; files also say their recipe."""
    named = {comparison.named_by: [row.name for row in comparison.rows]}
    if comparison.named_by == "file":
        named["recipe"] = [row.file_recipe for row in comparison.rows]
    return {head: [shortened(printable(name), NAME_CELLS) for name in names] for head, names in named.items()}


def shown_columns(comparison: Comparison, width: int) -> tuple[Column, ...]:
    """The columns that fit beside the names."""
    names = name_columns(comparison)
    taken = sum(max(map(cell_len, (head, *cells))) + GAP for head, cells in names.items()) - GAP
    return fitting(columns_of(comparison), comparison, width - taken)


def pointer(columns: Sequence[Column]) -> str:
    """Where the headings are explained: one that few people know is the example."""
    titles = [column.title for column in columns]
    example = next((title for title in ("KL", "verdict") if title in titles), titles[-1] if titles else "")
    return f"`lowbit explain {example}` says what a heading means."


def fitting(columns: tuple[Column, ...], comparison: Comparison, room: int) -> tuple[Column, ...]:
    """The columns that fit into `room` cells, chosen by rank and kept in order."""
    chosen: set[str] = set()
    for column in sorted(columns, key=lambda c: c.rank):
        need = cells(column, comparison) + GAP
        if need <= room:
            chosen.add(column.name)
            room -= need
    return tuple(column for column in columns if column.name in chosen)


def header(column: Column) -> str:
    """Title over unit."""
    return f"{column.title}\n{column.unit}"


def cells(column: Column, comparison: Comparison) -> int:
    """Width that a column needs."""
    texts = [*header(column).splitlines(), *(column.cell(row) for row in comparison.rows)]
    return max(cell_len(text) for text in texts)
