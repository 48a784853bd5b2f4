"""`explain`: what the words of tables and messages mean."""

from typing import Annotated

import typer

from lowbit.commands.options import JsonOption
from lowbit.console import print_json


def explain(
    term: Annotated[
        list[str] | None,
        typer.Argument(metavar="TERM", help="A word, such as KL or 'zero point'; by default all are listed."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a word of tables and messages means."""
    from lowbit.reports.glossary.table import meanings
    from lowbit.reports.terms import explained_json, print_meanings, print_words

    word = " ".join(term) if term else None
    if as_json:
        print_json(explained_json(word))
    elif word is None:
        print_words()
    else:
        print_meanings(meanings(word))
