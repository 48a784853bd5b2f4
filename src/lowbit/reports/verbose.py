"""`--verbose`: each part of the work when it is done, how long it took, and what was decided on the way."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lowbit.progress import Progress

Item = TypeVar("Item")


class Verbose:
    """Shows what another progress display shows, and a line for each loop that ends.

    Args:
        shown: the display.
    """

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._start = time.monotonic()

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, and say how many there were and how long they took."""
        start, done = time.monotonic(), 0
        try:
            for item in self._shown.track(items, what, total):
                yield item
                done += 1
        finally:
            self.detail(f"{what}: {done} in {time.monotonic() - start:.1f} s")

    def note(self, text: str) -> None:
        """Show a line."""
        self._shown.note(text)

    def detail(self, text: str) -> None:
        """Show a line with the time since the command began its work."""
        self._shown.note(f"{time.monotonic() - self._start:7.1f} s  {text}")


@contextlib.contextmanager
def verbose(shown: contextlib.AbstractContextManager[Progress]) -> Iterator[Progress]:
    """A display that also tells details."""
    with shown as display:
        yield Verbose(display)
