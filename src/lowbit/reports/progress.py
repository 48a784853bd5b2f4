"""How far a long command is: a bar with the time left on a terminal, elsewhere a line now and then."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from lowbit.printable import printable
from lowbit.progress import SILENT, Progress
from lowbit.reports.console import Console

Item = TypeVar("Item")

LINE_SECONDS = 30.0


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


class Lines:
    """Prints a line every half a minute: what runs, how far it is, and the time left.

    For logs and pipes, where nobody could tell silence from standing still.
    """

    def __init__(self, file: TextIO, *, every: float = LINE_SECONDS) -> None:
        self._file = file
        self._every = every
        self._last = time.monotonic()

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`; after an item a line is printed if the last one is long ago."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - self._last < self._every:
                continue
            self._last = now
            left = "" if not total else f" of {total}, about {_minutes((now - start) / done * (total - done))} left"
            self.note(f"{what}: {done}{left}")

    def note(self, text: str) -> None:
        """Print one line."""
        self._file.write(printable(text) + "\n")
        self._file.flush()


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


@contextlib.contextmanager
def bar(file: TextIO, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress display on `file` while the block runs: a bar on a terminal, else lines; nothing if `quiet`."""
    console = Console(file=file)
    if quiet:
        yield SILENT
        return
    if not console.is_terminal:
        yield Lines(file)
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
