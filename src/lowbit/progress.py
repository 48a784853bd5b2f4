"""Progress of long work: a protocol with two methods, and the silent default.

Library functions take `progress: Progress = SILENT` and never print; the command line passes a bar with the time left.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What a long loop reports to."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, showing `what` and how many of `total` are done."""
        ...

    def note(self, text: str) -> None:
        """Tell users something while they wait."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` unchanged."""
        return iter(items)

    def note(self, text: str) -> None:
        """Show nothing."""


SILENT: Progress = Silent()


def tell_detail(progress: Progress, text: str) -> None:
    """Tell what only those want to know who asked for details: a display that shows such has a method `detail`."""
    detail = getattr(progress, "detail", None)
    if detail is not None:
        detail(text)
