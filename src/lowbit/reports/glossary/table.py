"""The one table of words, by subject; a word of several subjects may have several meanings.

`python -m lowbit.reports.glossary` prints docs/glossary.md but for its last section, which is about words that are not
used.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lowbit.errors import LowbitError, did_you_mean
from lowbit.reports.glossary import measuring, networks, quantizing

SUBJECTS = {
    "Networks": networks.NETWORKS,
    "Codes and schemes": networks.CODES,
    "Deciding": quantizing.DECIDING,
    "Choosing the codes of a layer": quantizing.CHOOSING_CODES,
    "Passes over the network": quantizing.PASSES,
    "Searching": quantizing.SEARCHING,
    "Archives": quantizing.ARCHIVES,
    "Files": networks.FILES,
    "Integer graphs": networks.INTEGER_GRAPHS,
    "Measuring": measuring.MEASURING,
    "Headings of tables": measuring.HEADINGS,
    "Diagnosing": measuring.DIAGNOSING,
    "The study": measuring.STUDY,
}
INTRODUCTION = """\
# Glossary

One word, one meaning: code, messages and documentation use these words and no others for these things. Words that mean
what they mean everywhere (convolution, batch norm, histogram) are not listed. `lowbit explain WORD`
says the same on a terminal.
"""


@dataclass(frozen=True)
class Term:
    """A word, or several for one thing, and what it means.

    Attributes:
        subject: a key of `SUBJECTS`.
        words: as the glossary lists them: separated by commas, with what else tells meanings apart in parentheses.
        meaning: one to five sentences; the first begins small and the last has no full stop.
    """

    subject: str
    words: str
    meaning: str

    @property
    def names(self) -> tuple[str, ...]:
        """Each of the words, without parentheses."""
        return tuple(re.sub(r" \(.*?\)", "", self.words).split(", "))

    def sentence(self) -> str:
        """The meaning as running text."""
        return f"{self.meaning[0].upper()}{self.meaning[1:]}."


def terms() -> Iterator[Term]:
    """All terms in order."""
    for subject, table in SUBJECTS.items():
        for words, meaning in table.items():
            yield Term(subject, words, meaning)


def meanings(word: str) -> tuple[Term, ...]:
    """Every meaning of a word; capitals and a plural's s make no difference.

    Raises:
        LowbitError: no such word; the nearest ones are named.
    """
    wanted = _plain(word)
    found = tuple(term for term in terms() if wanted in map(_plain, term.names))
    if not found:
        near = did_you_mean(word.strip(), (name for term in terms() for name in term.names))
        raise LowbitError(f"there is no term '{word}'.", remedy=f"{near}`lowbit explain` lists all of them.")
    return found


def _plain(word: str) -> str:
    """A word as it is compared."""
    word = " ".join(word.split()).casefold()
    return word.removesuffix("s") if len(word) > 1 else word


def glossary() -> str:
    """docs/glossary.md, but for the words that are not used."""
    lines = [INTRODUCTION]
    for subject, table in SUBJECTS.items():
        rows = (f"| {words} | {meaning} |" for words, meaning in table.items())
        lines.append("\n".join((f"## {subject}\n", "| word | meaning |", "|---|---|", *rows)) + "\n")
    return "\n".join(lines)
