"""The search beside uniform recipes, mixtures of one family, and a plain greedy search: bytes, KL, drop and time.

    python benchmarks/search.py --data ../shared/data [--models resnet20 mobilenet_v2_035] [--time 300]
    python benchmarks/search.py --table

Test images are halved: one half is what searches may look at, all figures are of the other. At the size of a uniform
recipe the search looks for the file closest to float, from all families and from one alone; within a drop, for the
smallest. The greedy search lowers one layer after the other, the largest first, as far as the drop on the first half
allows, with plain codes; its file is then made with all steps. Each row is written at once.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from machine import stamp
from rows import Results, argument_parser, by_model, cell, failed, heading, line
from subjects import NETWORKS, Subject, missing, open_subject, replies

import lowbit
from lowbit.calibration.batches import as_runs
from lowbit.calibration.divergence import mean_kl
from lowbit.data.images import Images
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.ops import layers
from lowbit.quantization.passes.candidate import plain_graph
from lowbit.quantization.quantize import follow
from lowbit.searching.choices import planned

CALIBRATION, TEST = 250, 2000
UNIFORM = ("linear5", "linear4", "linear3", "linear2", "cluster4", "cluster3", "cluster2")
SIZES = ("linear4", "linear3")  # recipes whose sizes are searched at
FAMILIES = {"all families": (), "linear only": ("float", "linear"), "clusters only": ("float", "cluster", "linear8")}
MAX_DROP = 0.5
WIDTHS = (8, 6, 5, 4, 3, 2)


@dataclass(frozen=True)
class Row:
    """One file; figures are of images that nothing was chosen on."""

    model: str
    what: str
    at: str  # the recipe whose size, or the drop, that it was searched for
    bytes: int | None = None
    kl: float | None = None
    drop: float | None = None
    seconds: float | None = None
    candidates: int = 1
    forecast: float | None = None
    cpu: str = ""
    date: str = ""
    note: str = ""


RESULTS: Results[Row] = Results("search", Row, ("model", "what", "at"))


@dataclass(frozen=True)
class Halves:
    """A network with images that searches look at, and others that files are judged on."""

    subject: Subject
    seen: Images
    unseen: Images

    def judged(self, content: bytes) -> tuple[float, float]:
        """KL and drop on the images that nothing was chosen on."""
        files = (self.subject.model.to_bytes(), content)
        reference, answers = (replies(each, self.subject, self.unseen) for each in files)
        labels = self.unseen.labels
        lost = float((reference.argmax(1) == labels).mean() - (answers.argmax(1) == labels).mean())
        return mean_kl(reference, answers), 100 * lost


def rows(halves: Halves, seconds: float, rounds: int) -> Iterator[Row]:
    """All rows of a network, the uniform ones first."""
    subject = halves.subject
    model, images = subject.model, as_runs(subject.model, subject.calibration)
    uniform: dict[str, int] = {}

    def row(what: str, at: str, content: bytes, started: float, **more: object) -> Row:
        taken = time.monotonic() - started
        kl, drop = halves.judged(content)
        return dataclasses.replace(
            Row(subject.name, what, at, len(content), kl, drop, round(taken, 1), **stamp()), **more
        )

    for recipe in UNIFORM:
        started = time.monotonic()
        content = follow(model, lowbit.plan(model, recipe), images).to_bytes()
        uniform[recipe] = len(content)
        yield row(recipe, "uniform", content, started)
    limits = [(recipe, lowbit.SearchLimits(max_size=uniform[recipe], seconds=seconds)) for recipe in SIZES]
    asked = [(f"size of {recipe}", limit, what) for recipe, limit in limits for what in FAMILIES]
    asked.append((f"drop {MAX_DROP:g}", lowbit.SearchLimits(max_drop=MAX_DROP, seconds=seconds), "all families"))
    for at, limit, what in asked:
        started = time.monotonic()
        settings = lowbit.SearchSettings(recipes=FAMILIES[what], rounds=rounds)
        result = lowbit.search(model, halves.seen, limit, calibration=subject.calibration, settings=settings)
        more = {"candidates": len(result.candidates), "forecast": result.best.forecast}
        yield row(f"searched, {what}", at, result.best.content, started, **more)
    started = time.monotonic()
    content, tried = greedy(halves, MAX_DROP)
    yield row("greedy, linear only", f"drop {MAX_DROP:g}", content, started, candidates=tried)


def greedy(halves: Halves, most: float) -> tuple[bytes, int]:
    """The file of a greedy search, and how many it measured."""
    model = halves.subject.model
    labels = halves.seen.labels
    reference = replies(model.to_bytes(), halves.subject, halves.seen)
    weights = {layer.weight: model.weights[layer.weight].size for layer in layers(model)}
    choice = dict.fromkeys(weights, f"linear{WIDTHS[0]}")
    tried = 0
    for weight in sorted(weights, key=lambda name: -weights[name]):
        for width in WIDTHS[1:]:
            bolder = {**choice, weight: f"linear{width}"}
            content = to_onnx(plain_graph(model, planned(model, bolder, "balanced")))
            answers = replies(content, halves.subject, halves.seen)
            tried += 1
            lost = 100 * float(np.mean(reference.argmax(1) == labels) - np.mean(answers.argmax(1) == labels))
            if lost > most:
                break
            choice = bolder
    images = as_runs(model, halves.subject.calibration)
    return follow(model, planned(model, choice, "balanced"), images).to_bytes(), tried + 1


COLUMNS = ("KB", "KL", "drop, points", "files made", "s")


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """A table for each network."""
    parts = []
    for name, group in by_model(rows, model).items():
        parts += [f"**{name}**: {group[0].cpu}, {group[0].date}.\n", *heading(["file", "made for"], COLUMNS)]
        for row in group:
            if row.bytes is None:
                parts.append(failed((row.what, row.at), row.note, len(COLUMNS)))
                continue
            numbers = (f"{row.bytes / 1e3:.1f}", cell(row.kl, ".2g"), cell(row.drop, "+.2f"), str(row.candidates))
            parts.append(line((row.what, row.at, *numbers, cell(row.seconds, ".0f"))))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argument_parser(__doc__, models=NETWORKS, default=("resnet20", "mobilenet_v2_035", "rps128"))
    parser.add_argument("--time", type=float, default=300.0, help="seconds of each search")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    if given.table:
        RESULTS.fill_readmes(markdown)
        return
    for name in given.models:
        if note := missing(name, given.data):
            print(note)
            continue
        subject = open_subject(name, given.data, calibration=CALIBRATION, test=64 if given.quick else TEST)
        seen, unseen = subject.test.apart(subject.test.count // 2)
        for row in rows(Halves(subject, seen, unseen), given.time, given.rounds):
            print(row, flush=True)
            RESULTS.add([row], RESULTS.path(quick=given.quick))
    RESULTS.fill_readmes(markdown)


if __name__ == "__main__":
    main()
