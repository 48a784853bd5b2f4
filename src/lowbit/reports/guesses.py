"""A ranking of ways to prepare images, in the terminal."""

from collections.abc import Sequence

from rich.text import Text

from lowbit.diagnosis.preprocessing_guess import Guess
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import fitted, numbers, words

LEGEND = (
    "right class: mean probability of the labeled class. told apart: mutual information of image and answer, in nats; "
    "the more, the surer the model is of different classes."
)


def print_guesses(ranking: Sequence[Guess], *, console: Console | None = None) -> None:
    """The likeliest first, and whether it is beyond chance that it is."""
    console = console or Console()
    rows = [
        (
            guess.name,
            guess.preprocessing.colors,
            units.MISSING if guess.accuracy is None else f"{100 * guess.accuracy:.1f} %",
            units.MISSING if guess.probability is None else f"{guess.probability:.3f}",
            f"{guess.information:.3f}",
        )
        for guess in ranking
    ]
    measured = (numbers(head) for head in ("accuracy", "right class", "told apart"))
    console.print(fitted([words("pixels as"), words("colors"), *measured], rows, console.width))
    console.print(Text(LEGEND, style="dim"))
    first, second = ranking[:2]
    if not first.sure:
        console.print(Text(f"These images cannot tell {_named(first)} from {_named(second)}.", style="yellow"))


def _named(guess: Guess) -> str:
    return f"{guess.name} ({guess.preprocessing.colors})"
