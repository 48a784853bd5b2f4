"""What a search found as one HTML page: the plane of size and quality, in which a point that is clicked shows its
command, its file and its plan: a click follows a link, and the style sheet shows what it leads to, without a script.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from lowbit.reports import units
from lowbit.reports.document import document
from lowbit.reports.markup import Markup, element, table
from lowbit.reports.quality import PERCENT, Scale
from lowbit.reports.searched import answer
from lowbit.reports.svg import both
from lowbit.reports.trade_off import FILE_SIZE, LATENCY, Cost, Point, trade_off
from lowbit.searching.candidates import Candidate
from lowbit.searching.result import SearchResult

DISTANCE = Scale("", -1)
ACCURACY, CHANGED = "points of accuracy", "percent of predictions"


def search_page(result: SearchResult, model: str, source: Sequence[str], folder: Path) -> str:
    """The text of the page.

    Args:
        result: what was found.
        model: the float model's file.
        source: words of a command that name the calibration samples.
        folder: where the page will lie: links to files begin there.
    """
    words = "Click a point to see its command and its file. Filled points: nothing else is better in both."
    note = element("p", {"class": "note"}, words)
    charts = [element("section", {}, element("h2", {}, "Size and quality"), _chart(result, FILE_SIZE), note)]
    if any(each.latency_ms is not None for each in result.candidates):
        charts.append(element("section", {}, element("h2", {}, "Latency and quality"), _chart(result, LATENCY)))
    details = [_detail(result, each, model, source, folder) for each in result.candidates]
    chosen = element(
        "section", {"id": "chosen"}, element("h2", {}, "The point that was clicked"), *details,
        element("p", {"class": "hint"}, "None yet."),
    )  # fmt: skip
    lines = [element("p", {"class": "lead"}, answer(result))]
    if result.certificate is not None:
        lines.append(element("p", {}, f"{result.certificate.sentence()} {result.split}"))
    lines += [element("p", {}, note) for note in result.notes]
    everything = element("section", {}, element("h2", {}, "All candidates"), _table(result))
    return document(
        f"{Path(model).name}: searched",
        element("header", {}, element("h1", {}, Path(model).name), *lines),
        element("main", {}, *charts, chosen, everything),
    )


def command_of(candidate: Candidate, model: str, source: Sequence[str], plan: Path | None) -> str:
    """The command that makes a candidate's file again."""
    if candidate.name == "float":
        return ""
    if candidate.rate is not None:
        words = ["lowbit", "pack", model, "--size", str(candidate.bytes), "--effort", candidate.rate.effort]
        return shlex.join([*words, *source, "-o", "FILE"])
    if plan is None:
        return f"lowbit quantize {shlex.quote(model)} -r {candidate.plan.recipe.name} -o FILE"
    words = ["lowbit", "quantize", model, "--plan", str(plan), *(source if candidate.plan.steps else ()), "-o", "FILE"]
    return shlex.join(words)


def _chart(result: SearchResult, cost: Cost) -> Markup:
    counted = result.measure in (ACCURACY, CHANGED)
    points = [
        Point(
            each.name,
            float(each.bytes) if cost is FILE_SIZE else each.latency_ms or 0.0,
            each.marks.metric if counted else -each.marks.distance,
            None,
            None,
            each.name == "float",
            f"#c-{each.name}",
        )
        for each in result.candidates
        if cost is FILE_SIZE or each.latency_ms
    ]
    title = "Agreement, %" if result.measure == CHANGED else "Accuracy, %" if counted else "Distance from float"
    scale = PERCENT if counted else DISTANCE
    return both(lambda width: trade_off(points, width, title=title, scale=scale, cost=cost))


def _detail(result: SearchResult, candidate: Candidate, model: str, source: Sequence[str], folder: Path) -> Markup:
    path = result.paths.get(candidate.name)
    plan = None if path is None else path.parent / f"{path.name.split('.')[0]}.plan.json"
    pairs = [("Size", units.size(candidate.bytes)), ("Lost", f"{candidate.marks.drop:.2f} {result.measure}")]
    pairs.append(("Distance from float", units.small(candidate.marks.distance)))
    if candidate.latency_ms is not None:
        pairs.append(("Latency", f"{units.milliseconds(candidate.latency_ms)} ms"))
    rows: list[Markup] = []
    for name, value in pairs:
        rows += [element("dt", {}, name), element("dd", {}, value)]
    for name, file in (("File", path), ("Plan", plan)):
        if file is not None:
            link = os.path.relpath(file, folder)
            rows += [element("dt", {}, name), element("dd", {}, element("a", {"href": link}, link))]
    if command := command_of(candidate, model, source, plan):
        rows += [element("dt", {}, "Command"), element("dd", {}, element("code", {}, command))]
    title = element("h3", {}, candidate.name)
    return element(
        "article", {"id": f"c-{candidate.name}", "class": "detail"}, title, element("dl", {"class": "pairs"}, *rows)
    )


def _table(result: SearchResult) -> Markup:
    front = {each.name for each in result.front}
    timed = any(each.latency_ms is not None for each in result.candidates)
    heads = ("Candidate", "Bytes", f"Lost, {result.measure}", "Distance", "Forecast", "On the front")
    return table(
        (*heads, "ms") if timed else heads,
        (
            (
                element("a", {"href": f"#c-{each.name}"}, each.name),
                units.count(each.bytes),
                units.decimal(each.marks.drop),
                units.small(each.marks.distance),
                units.small(each.forecast or None),
                "yes" if each.name in front else "",
                *([units.milliseconds(each.latency_ms)] if timed else ()),
            )
            for each in result.candidates
        ),
    )
