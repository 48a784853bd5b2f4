"""Strangers' text on a terminal: names in a model may hold codes that move its cursor, or lines that look like ours."""

import unicodedata
from collections.abc import Iterable

# Controls, marks that turn the direction of writing, halves of a character, separators of lines and paragraphs.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with every character that a terminal would obey, and not show, as Python writes it: `\x1b`, `\n`.

    Args:
        text: as it stands in a file.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in UNPRINTABLE else ascii(char)[1:-1] for char in text
    )


def brief(text: str, most: int = 48) -> str:
    """A name in one line of at most so many characters: what is left out in the middle is an ellipsis."""
    text = printable(text)
    if len(text) <= most:
        return text
    return f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    names = tuple(names)
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([brief(name) for name in names[:most]] + more)


def several(number: int, thing: str) -> str:
    """How many of something: 1 node, 3 nodes."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
