"""Strangers' text on a terminal: names in a model may hold codes that move its cursor, or lines that look like ours."""

import unicodedata

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
