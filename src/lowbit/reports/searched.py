"""What `lowbit search` found, on a terminal."""

from pathlib import Path

from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import fitted, numbers, words
from lowbit.searching.result import SearchResult


def print_search(result: SearchResult, output: Path | None, *, console: Console | None = None) -> None:
    """The front as a table, the answer in a sentence, and how sure it is."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    timed = any(each.latency_ms is not None for each in result.candidates)
    columns = [words("candidate"), numbers("bytes"), *([numbers("ms")] if timed else []), numbers("lost")]
    rows = [
        [
            f"{each.name} *" if each.name == result.best.name else each.name,
            f"{each.bytes:,}",
            *([units.milliseconds(each.latency_ms)] if timed else []),
            f"{each.marks.drop:.2f}",
            units.small(each.marks.distance),
            str(result.paths.get(each.name, "")),
        ]
        for each in result.front
    ]
    console.print(fitted([*columns, numbers("distance"), words("file")], rows, console.width))
    say(f"Lost: {result.measure}.")
    say(f"* {answer(result)}" + (f" It is in {output}." if output is not None else ""))
    if result.certificate is not None:
        say(f"{result.certificate.sentence()} {result.split}")
    for note in result.notes:
        say(note)
    if result.interrupted:
        say("Stopped before the end: this is the best so far.")


def answer(result: SearchResult) -> str:
    """The answer in a sentence."""
    best = result.best
    what = "The best found" if result.met else "The nearest to what was asked for"
    time = "" if best.latency_ms is None else f", {best.latency_ms:.2f} ms"
    tried = f"{len(result.candidates)} candidates in {result.seconds:.0f} s"
    return (
        f"{what} is {best.name}: {best.bytes:,} bytes{time}, {best.marks.drop:.2f} {result.measure} lost on the "
        f"samples that chose ({tried})."
    )
