"""The search beside uniform recipes, mixtures of one family, a greedy search and NNCF's accuracy control.

    python benchmarks/search.py --data ../shared/data [--models resnet20 mobilenet_v2_035] [--time 300] [--seed 1]
    python benchmarks/search.py --table

Test images are halved: one half is what searches may look at, all figures are of the other. At the size of a uniform
recipe the search looks for the file closest to float, from all families and from one alone; within a drop, for the
smallest, and for the smallest archive, whose bits are allocated, or with a family named, mixed. The greedy search
lowers one layer after the other, the largest first, as far as the drop on the first half allows, with plain codes; its
file is then made with all steps. NNCF's `quantize_with_accuracy_control` keeps layers in float until the drop on the
first half is kept; it answers in OpenVINO, and its row is made where its environment is there (`--install-peers` makes
it). `--only "time to drop 0.5"` runs the three one after the other, and tells the processor seconds of each;
those of the search until it had a file as small as each of the others. Each row is written at once.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from machine import stamp
from peer_tools import installed, peer, run
from rows import HERE, Results, argument_parser, by_model, cell, failed, heading, line
from subjects import NETWORKS, Subject, missing, open_subject, replies

import lowbit
from lowbit.calibration.batches import as_runs
from lowbit.calibration.divergence import mean_kl
from lowbit.data.images import Images
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.ops import layers
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.inputs import first_batch
from lowbit.measurement.speed import latency
from lowbit.packing.container import is_archive
from lowbit.quantization.passes.candidate import plain_graph
from lowbit.quantization.quantize import follow
from lowbit.searching.choices import planned

CALIBRATION, TEST = 250, 2000
UNIFORM = ("linear5", "linear4", "linear3", "linear2", "cluster4", "cluster3", "cluster2")
SIZES = ("linear4", "linear3")  # recipes whose sizes are searched at
FAMILIES = {"all families": (), "linear only": ("float", "linear"), "clusters only": ("float", "cluster", "linear8")}
MAX_DROP = 0.5
WIDTHS = (8, 6, 5, 4, 3, 2)
BATCH = 32
ACCURACY_CONTROL = "NNCF, accuracy control"
TIMED_RUNS = 200

Item = TypeVar("Item")


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
    processor_seconds: float | None = None
    candidates: int = 1
    forecast: float | None = None
    latency_ms: float | None = None
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
        return self.lost(reference, answers)

    def lost(self, reference: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
        """KL and drop of answers to these images."""
        labels = self.unseen.labels
        lost = float((reference.argmax(1) == labels).mean() - (answers.argmax(1) == labels).mean())
        return mean_kl(reference, answers), 100 * lost


@dataclass(frozen=True)
class Bench:
    """One network, and how rows of it are made.

    Attributes:
        halves: its images.
        seconds: of each search.
        rounds: likewise.
        families: names of `FAMILIES` that are searched at sizes.
        only: what rows are made for, such as `uniform` or `drop 0.5`; empty for all.
    """

    halves: Halves
    seconds: float
    rounds: int
    families: Sequence[str] = tuple(FAMILIES)
    only: Sequence[str] = ()

    def wants(self, at: str) -> bool:
        return not self.only or at in self.only

    def row(self, what: str, at: str, content: bytes, seconds: float | None, **more: object) -> Row:
        kl, drop = self.halves.judged(archive.unpack(content) if is_archive(content) else content)
        seconds = None if seconds is None else round(seconds, 1)
        row = Row(self.halves.subject.name, what, at, len(content), kl, drop, seconds, **stamp())
        return dataclasses.replace(row, **more)

    def made(self, recipe: str) -> bytes:
        model = self.halves.subject.model
        images = as_runs(model, self.halves.subject.calibration)
        return follow(model, lowbit.plan(model, recipe), images).to_bytes()

    def searched(self, at: str, limit: lowbit.SearchLimits, what: str, *, archived: bool = False) -> tuple[Row, bytes]:
        """The row of a search, and its file."""
        subject = self.halves.subject
        settings = lowbit.SearchSettings(recipes=FAMILIES[what], rounds=self.rounds, archive=archived)
        started = time.monotonic()
        result = lowbit.search(
            subject.model, self.halves.seen, limit, calibration=subject.calibration, settings=settings
        )
        seconds = time.monotonic() - started
        more = {"candidates": len(result.candidates), "forecast": result.best.forecast}
        return self.row(f"searched, {what}", at, result.best.content, seconds, **more), result.best.content


def rows(bench: Bench) -> Iterator[Row]:
    """All rows of a network, the uniform ones first."""
    for recipe in UNIFORM if bench.wants("uniform") else ():
        started = time.monotonic()
        content = bench.made(recipe)
        seconds = time.monotonic() - started
        yield bench.row(recipe, "uniform", content, seconds)
        yield bench.row(recipe, "uniform, archived", archive.pack(content), seconds)
    for recipe in SIZES:
        if bench.wants(at := f"size of {recipe}"):
            limit = lowbit.SearchLimits(max_size=len(bench.made(recipe)), seconds=bench.seconds)
            for what in bench.families:
                yield bench.searched(at, limit, what)[0]
    if bench.wants(at := f"drop {MAX_DROP:g}"):
        limit = lowbit.SearchLimits(max_drop=MAX_DROP, seconds=bench.seconds)
        yield bench.searched(at, limit, "all families")[0]
        started = time.monotonic()
        content, tried = greedy(bench.halves, MAX_DROP)
        yield bench.row("greedy, linear only", at, content, time.monotonic() - started, candidates=tried)
    if bench.wants(at := f"archive, drop {MAX_DROP:g}"):
        limit = lowbit.SearchLimits(max_drop=MAX_DROP, seconds=bench.seconds)
        for what in bench.families:
            yield bench.searched(at, limit, what, archived=True)[0]
    if bench.wants(ACCURACY_CONTROL) and installed("nncf"):
        yield accuracy_control(bench.halves, MAX_DROP)
    if (at := f"time to drop {MAX_DROP:g}") in bench.only:  # the same files once more
        yield from times_to(bench, at)
    if bench.wants(at := f"latency within {MAX_DROP:g}"):
        yield from fastest(bench, at)


class Clock:
    """Progress that reads the processor's clock whenever a search has made a candidate."""

    def __init__(self) -> None:
        self.started, self.seconds = time.process_time(), list[float]()

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        return iter(items)

    def note(self, text: str) -> None:
        self.seconds.append(time.process_time() - self.started)


def times_to(bench: Bench, at: str) -> Iterator[Row]:
    """Processor seconds of the greedy search, of NNCF, and of the search until its best file is as small as theirs."""
    subject, started = bench.halves.subject, time.process_time()
    content, tried = greedy(bench.halves, MAX_DROP)
    taken = round(time.process_time() - started, 1)
    greedy_row = bench.row("greedy, linear only", at, content, None, candidates=tried, processor_seconds=taken)
    others = {"greedy": greedy_row}
    if installed("nncf"):
        others["NNCF"] = dataclasses.replace(accuracy_control(bench.halves, MAX_DROP), at=at, seconds=None)
    yield from others.values()
    clock = Clock()
    limit = lowbit.SearchLimits(max_drop=MAX_DROP, seconds=bench.seconds)
    settings = lowbit.SearchSettings(rounds=bench.rounds)
    result = lowbit.search(
        subject.model, bench.halves.seen, limit, calibration=subject.calibration, settings=settings, progress=clock
    )
    known = list(zip(result.candidates, clock.seconds, strict=True))
    for name, other in others.items():
        small = [(each, seconds) for each, seconds in known if each.bytes <= (other.bytes or 0)]
        for each, seconds in [(each, seconds) for each, seconds in small if each.marks.drop <= MAX_DROP][:1]:
            count = result.candidates.index(each) + 1
            row = bench.row(f"searched, as small as {name}", at, each.content, None, candidates=count)
            yield dataclasses.replace(row, processor_seconds=round(seconds, 1))


def fastest(bench: Bench, at: str) -> Iterator[Row]:
    """The fastest file within a drop beside int8, timed in turns."""
    limit = lowbit.SearchLimits(max_drop=MAX_DROP, minimize="latency", seconds=bench.seconds)
    row, content = bench.searched(at, limit, "all families")
    started = time.monotonic()
    int8 = bench.made("int8")
    other = bench.row("int8", at, int8, time.monotonic() - started)
    conditions = Conditions(runs=TIMED_RUNS)
    inputs = first_batch(bench.halves.seen, conditions.batch)
    times = latency({"searched": content, "int8": int8}, dict.fromkeys(("searched", "int8"), inputs), conditions)
    for each, name in ((row, "searched"), (other, "int8")):
        yield dataclasses.replace(each, latency_ms=times[name].median_ms)


def accuracy_control(halves: Halves, most: float) -> Row:
    """What NNCF comes to with the same images; seconds are those of its own work."""
    subject = halves.subject
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, images in (("calibration", subject.calibration), ("seen", halves.seen), ("unseen", halves.unseen)):
            np.save(folder / f"{part}.npy", np.concatenate([batch.x for batch in images.batches(BATCH)]))
        np.save(folder / "labels.npy", halves.seen.labels)
        script = HERE / "peers" / "nncf_accuracy_control.py"
        run([peer("nncf"), script, subject.path, folder, folder, "--max-drop", most / 100])
        found = json.loads((folder / "result.json").read_text())
        reference = replies(subject.model.to_bytes(), subject, halves.unseen)
        kl, drop = halves.lost(reference, np.load(folder / "logits.npy").reshape(reference.shape))
    of_file = {"bytes": found["file_bytes"], "kl": kl, "drop": drop, "seconds": round(found["seconds"], 1)}
    of_file |= {"processor_seconds": round(found["processor_seconds"], 1)}
    of_file |= {"candidates": found["measured"], "note": "measured in OpenVINO"}
    return Row(subject.name, ACCURACY_CONTROL, f"drop {most:g}", **of_file, **stamp())


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


COLUMNS = ("KB", "KL", "drop, points", "files made", "s", "processor s", "ms")


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
            times = (cell(row.seconds, ".0f"), cell(row.processor_seconds, ".0f"), cell(row.latency_ms, ".2f"))
            parts.append(line((row.what, row.at, *numbers, *times)))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argument_parser(__doc__, models=NETWORKS, default=("resnet20", "mobilenet_v2_035", "rps128"))
    parser.add_argument("--time", type=float, default=300.0, help="seconds of each search")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=tuple(FAMILIES))
    parser.add_argument("--only", nargs="+", default=(), help="what rows are made for, such as 'size of linear4'")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration images; others have rows of their own")
    parser.add_argument("--install-peers", action="store_true", help="make NNCF's environment if it is not there")
    given = parser.parse_args()
    if given.table:
        RESULTS.fill_readmes(markdown)
        return
    if given.install_peers:
        peer("nncf")
    for name in given.models:
        if note := missing(name, given.data):
            print(note)
            continue
        test = 64 if given.quick else TEST
        subject = open_subject(name, given.data, calibration=CALIBRATION, test=test, seed=given.seed)
        seen, unseen = subject.test.apart(subject.test.count // 2)
        for row in rows(Bench(Halves(subject, seen, unseen), given.time, given.rounds, given.families, given.only)):
            row = dataclasses.replace(row, at=f"{row.at}, seed {given.seed}") if given.seed else row
            print(row, flush=True)
            RESULTS.add([row], RESULTS.path(quick=given.quick))
    RESULTS.fill_readmes(markdown)


if __name__ == "__main__":
    main()
