"""The progress bar with the time left, on a terminal; nothing elsewhere."""

import contextlib
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from lowbit.printable import printable
from lowbit.progress import SILENT, Progress
from lowbit.reports.console import Console

Item = TypeVar("Item")


class Bar:
    """Shows each tracked loop as one bar that vanishes when the loop is done."""

    def __init__(self, display: RichProgress) -> None:
        self._display = display

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` and advance a bar."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        task = self._display.add_task(printable(what), total=total)
        try:
            for item in items:
                yield item
                self._display.advance(task)
        finally:
            self._display.remove_task(task)

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._display.console.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def bar(file: TextIO, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress display on `file` while the block runs; silent if `quiet`, or if it is not a terminal."""
    console = Console(file=file)
    if quiet or not console.is_terminal:
        yield SILENT
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True) as display:
        yield Bar(display)
