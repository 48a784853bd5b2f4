"""What `lowbit search` found, on a terminal."""

from pathlib import Path

from rich.table import Table

from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.searching.result import SearchResult


def print_search(result: SearchResult, output: Path | None, *, console: Console | None = None) -> None:
    """The front as a table, the answer in a sentence, and how sure it is."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    timed = any(each.latency_ms is not None for each in result.candidates)
    table = Table(box=None, pad_edge=False)
    for head in ("candidate", "bytes", *(["ms"] if timed else []), f"lost\n{result.measure}", "distance", "file"):
        table.add_column(head, justify="left" if head in ("candidate", "file") else "right")
    for each in result.front:
        table.add_row(
            f"{each.name} *" if each.name == result.best.name else each.name,
            f"{each.bytes:,}",
            *([units.milliseconds(each.latency_ms)] if timed else []),
            f"{each.marks.drop:.2f}",
            units.small(each.marks.distance),
            str(result.paths.get(each.name, "")),
        )
    console.print(table)
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
