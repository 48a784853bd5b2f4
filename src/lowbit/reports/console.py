"""The console that all reports print on: only its own codes reach the terminal, none that stand in names."""

from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from lowbit.printable import printable


class Console(rich.console.Console):
    """Rich's console, for tables and lines: control characters in their cells are shown, not obeyed."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as rich has it
        super().__init__(markup=False, emoji=False, **options)  # brackets and colons in names are what they are

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
