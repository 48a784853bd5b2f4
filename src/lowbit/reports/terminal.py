"""The comparison as a terminal table: as many columns as fit, the most important ones first, no number wrapped."""

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lowbit.measurement.results import Comparison
from lowbit.reports.columns import Column, best_of, columns_of
from lowbit.reports.console import Console
from lowbit.reports.footnotes import complaints, footnotes

NAME_CELLS = 28
COMPLAINTS = 6
GAP = 3  # cells between two columns


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the table, how it was measured, and what was requested and not given."""
    console = console or Console()
    console.print(comparison_table(comparison, width=console.width))
    for note in footnotes(comparison):
        console.print(Text(note, style="dim"))
    unmet = complaints(comparison)
    for note in unmet[:COMPLAINTS]:
        console.print(Text.assemble(("! ", "yellow"), note))
    if len(unmet) > COMPLAINTS:
        console.print(Text(f"  and {len(unmet) - COMPLAINTS} more; the report lists all of them.", style="dim"))


def comparison_table(comparison: Comparison, *, width: int) -> Table:
    """The table for a terminal of `width` cells."""
    rows = comparison.rows
    longest = max((cell_len(row.name) for row in rows), default=0)
    name_cells = max(len("recipe"), min(NAME_CELLS, longest))
    columns = fitting(columns_of(comparison), comparison, width - name_cells)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("recipe", no_wrap=True, max_width=name_cells, overflow="ellipsis")
    for column in columns:
        table.add_column(header(column), justify="right", no_wrap=True, min_width=cells(column, comparison))
    quantized = [row for row in rows if not comparison.is_reference(row)]
    best = [best_of(column, quantized) for column in columns]
    for place, row in enumerate(rows):
        tops = [""] * len(columns) if comparison.is_reference(row) else best
        texts = [
            Text(column.cell(row), style="bold green" if top and column.cell(row) == top else "")
            for column, top in zip(columns, tops, strict=True)
        ]
        table.add_row(Text(row.name, style="" if place else "italic"), *texts, end_section=place == 0)
    return table


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
