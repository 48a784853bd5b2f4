"""What a word means, in the terminal."""

import textwrap
from collections.abc import Iterable
from typing import Any

from rich.text import Text

from lowbit.reports.console import Console
from lowbit.reports.glossary.table import SUBJECTS, Term, meanings, terms

INDENT = "  "
WIDEST = 100  # cells of a line that is still read with ease


def print_meanings(found: Iterable[Term], *, console: Console | None = None) -> None:
    """Each meaning under its word and subject."""
    console = console or Console()
    for term in found:
        console.print(Text.assemble((term.words, "bold"), (f"  {term.subject}", "dim")))
        _print_wrapped(term.sentence(), console)


def print_words(*, console: Console | None = None) -> None:
    """All words by subject."""
    console = console or Console()
    for subject, table in SUBJECTS.items():
        console.print(Text(subject, style="bold"))
        _print_wrapped(", ".join(table), console)
    console.print("`lowbit explain WORD` says what one of them means.", highlight=False)


def _print_wrapped(text: str, console: Console) -> None:
    width = min(console.width, WIDEST)
    for line in textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False):
        console.print(line, highlight=False)


def explained_json(word: str | None) -> list[dict[str, Any]]:
    """The meanings of a word, or of all words, as plain data."""
    found = terms() if word is None else meanings(word)
    return [{"words": list(term.names), "subject": term.subject, "meaning": term.sentence()} for term in found]
