"""The console that all reports print on: only its own codes reach the terminal, none that stand in names."""

import os
from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from lowbit.printable import printable

# Where nothing says how wide a line may be, as in a pipe or a file: no line is broken and no name cut.
UNLIMITED = 1_000_000


class Console(rich.console.Console):
    """Rich's console, for tables and lines: control characters in their cells are shown, not obeyed."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as rich has it
        super().__init__(markup=False, emoji=False, **options)  # brackets and colons in names are what they are
        if not (self.is_terminal or options.get("width") or os.environ.get("COLUMNS")):
            self._width = UNLIMITED

    @property
    def limited(self) -> bool:
        """Whether lines have an end."""
        return self.width < UNLIMITED

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich has it
        """Print as rich does; line breaks in headings stay."""
        super().print(*map(_shown, objects), **options)


def _shown(item: Any, keep: str = "") -> Any:  # noqa: ANN401 - whatever rich prints
    if isinstance(item, str):
        return printable(item, keep=keep)
    if isinstance(item, Text):
        if item.plain != (plain := printable(item.plain, keep=keep)):
            return Text(plain, style=item.style)
    elif isinstance(item, Table):
        for column in item.columns:
            column.header = _shown(column.header, keep="\n")
            # Before the widths are measured, which are those of what is shown.
            column._cells = [_shown(cell) for cell in column._cells]
    return item
