"""How far long work is: a bar with the time left on a terminal or in a notebook, elsewhere a line now and then."""

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from lowbit.printable import printable
from lowbit.progress import SILENT, Progress
from lowbit.reports.console import Console
from lowbit.reports.markup import element, join
from lowbit.switches import QUIET, is_on

Item = TypeVar("Item")

LINE_SECONDS = 30.0
PATIENCE_SECONDS = 2.0  # what takes no longer shows no bar
DRAWN_SECONDS = 0.2  # between two pictures of a bar in a notebook
_shown = threading.Lock()  # held while something is shown: a second bar would write over the first


class Bar:
    """Shows each tracked loop as one bar that vanishes when the loop is done."""

    def __init__(self, display: RichProgress) -> None:
        self._display = display

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` and advance a bar."""
        total = _total(items, total)
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
        total, start = _total(items, total), time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - self._last < self._every:
                continue
            self._last = now
            self.note(_so_far(what, done, total, now - start))

    def note(self, text: str) -> None:
        """Print one line."""
        self._file.write(printable(text) + "\n")
        self._file.flush()


class NotebookBars:
    """One bar below the other for loops within loops, in the output of a cell, until `clear`."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show  # takes HTML, and the same as text
        self._loops: list[tuple[str, int, int | None, float]] = []
        self._begun = time.monotonic()
        self._drawn = 0.0

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` and advance a bar."""
        total, start, place = _total(items, total), time.monotonic(), len(self._loops)
        self._loops.append((what, 0, total, start))
        try:
            for done, item in enumerate(items, 1):
                self._draw()
                yield item
                self._loops[place] = (what, done, total, start)
                self._draw()
        finally:
            del self._loops[place:]

    def note(self, text: str) -> None:
        """Print one line, as `print` does."""
        sys.stdout.write(printable(text) + "\n")

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._begun < PATIENCE_SECONDS or now - self._drawn < DRAWN_SECONDS:
            return
        self._drawn = now
        lines = [_so_far(what, done, total, now - start) for what, done, total, start in self._loops]
        bars = [
            element("div", {}, element("progress", {"value": done, "max": total} if total else {}), f" {line}")
            for (_, done, total, _), line in zip(self._loops, lines, strict=True)
        ]
        self._show(join(bars), "\n".join(map(printable, lines)))

    def clear(self) -> None:
        """Show nothing any more, if anything was shown."""
        if self._drawn:
            self._show("", "")


def _total(items: Iterable[Item], total: int | None) -> int | None:
    return len(items) if total is None and isinstance(items, Sized) else total


def _so_far(what: str, done: int, total: int | None, seconds: float) -> str:
    """How far a loop is, and when it will be done."""
    if not total:
        return f"{what}: {done}"
    left = f", about {_minutes(seconds / done * (total - done))} left" if done else ""
    return f"{what}: {done} of {total}{left}"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


@contextlib.contextmanager
def bar(file: TextIO, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress display on `file` while the block runs: a bar on a terminal, else lines; nothing if `quiet`."""
    console = Console(file=file)
    with _alone():
        if quiet:
            yield SILENT
        elif not console.is_terminal:
            yield Lines(file)
        else:
            with _display(console) as display:
                yield Bar(display)


@contextlib.contextmanager
def automatic() -> Iterator[Progress]:
    """What a function shows of itself: a bar in a notebook or on a terminal, if it is at work for long."""
    with _alone() as alone:
        if not alone or is_on(QUIET):
            yield SILENT
        elif in_notebook():
            bars = NotebookBars(_cell_output())
            try:
                yield bars
            finally:
                bars.clear()
        elif sys.stderr.isatty():
            display = _display(Console(file=sys.stderr), redirect=False)  # what the caller prints goes where it did
            later = threading.Timer(PATIENCE_SECONDS, display.start)
            later.daemon = True
            later.start()
            try:
                yield Bar(display)
            finally:
                later.cancel()
                later.join()  # it may be starting the display
                display.stop()
        else:
            yield SILENT


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """Whether nothing else is shown; nothing else begins to be while the block runs."""
    alone = _shown.acquire(blocking=False)
    try:
        yield alone
    finally:
        if alone:
            _shown.release()


def _display(console: Console, *, redirect: bool = True) -> RichProgress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return RichProgress(*columns, console=console, transient=True, redirect_stdout=redirect, redirect_stderr=redirect)


def in_notebook() -> bool:
    """Whether the code runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _cell_output() -> Callable[[str, str], None]:
    """A place in the output of the cell that runs; each call replaces what was shown there."""
    display = importlib.import_module("IPython.display").display
    place = None

    def show(html: str, text: str) -> None:
        nonlocal place
        content = {"text/html": html, "text/plain": text}
        if place is None:
            place = display(content, raw=True, display_id=True)
        else:
            place.update(content, raw=True)

    return show
