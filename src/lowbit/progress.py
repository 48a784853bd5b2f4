"""How long work tells that it goes on: a protocol with two verbs, and the silent default.

Library functions take `progress: Progress = SILENT` and never print; the command line passes a bar with the time left.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What a long loop needs to say."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, showing `what` and how many of `total` are done."""
        ...

    def note(self, text: str) -> None:
        """Say one thing that a user may want to know while waiting."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` unchanged."""
        return iter(items)

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
