"""How accuracy depends on which images calibrate: `accuracy.py --seeds`, with images of several draws.

A cell is one network, tool, recipe and effort, calibrated on the images that one seed draws. It is evaluated on test
images and, to show how far it is fitted to what it has seen, on the calibration images themselves. Cells are kept in
`results/accuracy_seeds.json`; one that is there already is not measured again.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accuracy_tools import Candidate, candidates
from detections import f1
from machine import stamp
from peer_tools import installed, why
from rows import JsonResults, by_model, cell, escaped, failed, heading, line, position
from subjects import DETECTOR, NETWORKS, Subject, missing, open_subject, replies

import lowbit
from lowbit.calibration.divergence import mean_kl
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.measurement.results import finite
from lowbit.quantization.solving.effort import EFFORTS

TOOLS = ("lowbit", "plain", "onnxruntime", "nncf")
CLASSIFIER = ("KL, test", "spread", "KL, calibration", "points lost", "spread")
FOUND = ("F1, test", "spread", "F1, calibration")
FILE = ("bits per weight", "file, KB", "s")


@dataclass(frozen=True)
class Row:
    """One cell: KL from float in nats, accuracy in percent, F1 of a detector against float; seconds of quantizing."""

    model: str
    tool: str
    recipe: str
    effort: str
    seed: int
    calibration_images: int
    kl: float | None = None
    kl_calibration: float | None = None
    lost_points: float | None = None
    f1: float | None = None
    f1_calibration: float | None = None
    bits_per_weight: float | None = None
    file_bytes: int | None = None
    seconds: float | None = None
    test_images: int = 0
    float_accuracy: float | None = None
    version: str = ""
    cpu: str = ""
    date: str = ""
    note: str = ""


# --- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; `images` and `tests` are at most so many, `again` measures what is there too."""

    data: Path
    candidates: Sequence[Candidate]
    seeds: Sequence[int]
    images: int
    tests: int | None
    path: Path
    again: bool


def key(row: Row) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in RESULTS.key)


def available(tools: Sequence[str], *, install: bool) -> list[str]:
    """The tools that can be run; says which cannot."""
    tools = [tool for tool in TOOLS if tool in tools]
    if "nncf" in tools and not install and not installed("nncf"):
        print("NNCF is skipped: its environment is not there; --install-peers makes it.", flush=True)
        tools.remove("nncf")
    return tools


def measure_network(name: str, asked: Asked) -> None:
    """All cells of one network that are not there yet."""
    if sentence := missing(name, asked.data):
        print(sentence, flush=True)
        return
    reference: np.ndarray | None = None
    drawn: list[tuple[object, ...]] = []
    for seed in asked.seeds:
        subject = open_subject(name, asked.data, calibration=asked.images, test=asked.tests, seed=seed)
        if subject.calibration.source.places in drawn:
            count = subject.calibration.count
            print(f"{name}: seed {seed} is skipped: there are only {count} images, so it draws the same.", flush=True)
            continue
        drawn.append(subject.calibration.source.places)
        known = set() if asked.again else {key(row) for row in RESULTS.read(asked.path)}
        todo = [candidate for candidate in asked.candidates if key(empty(subject, candidate, seed)) not in known]
        print(f"{name} seed {seed}: {len(todo)} of {len(asked.candidates)} cells to measure", flush=True)
        if not todo:
            continue
        content = subject.path.read_bytes()
        reference = replies(content, subject, subject.test) if reference is None else reference
        seen = replies(content, subject, subject.calibration)
        for index, candidate in enumerate(todo, 1):
            row = measure(subject, candidate, seed, reference, seen)
            RESULTS.add([row], asked.path)
            print(f"{name} seed {seed} {index}/{len(todo)} {in_words(row)}", flush=True)


def empty(subject: Subject, candidate: Candidate, seed: int) -> Row:
    """The row of a cell before it is measured."""
    names, images = (candidate.tool, candidate.recipe, candidate.effort), subject.calibration.count
    row = Row(subject.name, *names, seed, images, test_images=subject.test.count, version=lowbit.__version__)
    made = stamp()
    return replace(row, cpu=made["cpu"], date=made["date"])


def measure(subject: Subject, candidate: Candidate, seed: int, reference: np.ndarray, seen: np.ndarray) -> Row:
    """Quantize, write, read again, answer; a tool that fails gets a row that says so.

    Args:
        subject: the network, with the images that this seed draws.
        candidate: the tool and its recipe.
        seed: of the draw.
        reference: the float file's answers on test images.
        seen: the float file's answers on calibration images.
    """
    words = f"{candidate.tool} {candidate.recipe} {candidate.effort} {seed}"
    folder = RESULTS.build / subject.name / re.sub(r"\W+", "-", words)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row = empty(subject, candidate, seed)
    try:
        made = candidate.make(subject, folder)
        if made.path is not None:
            ledger, content = read_ledger(made.path), made.path.read_bytes()
            made = replace(made, bits_per_weight=ledger.bits_per_weight, file_bytes=ledger.total)
            tested, calibrated = (replies(content, subject, part) for part in (subject.test, subject.calibration))
        else:
            tested, calibrated = (
                part.reshape(len(part), -1) for part in (made.logits, made.calibration_logits) if part is not None
            )
    # Whatever a peer raises belongs in its row: the others still have to be measured.
    except Exception as error:
        return replace(row, note=f"failed: {why(error)}")
    if not (np.isfinite(tested).all() and np.isfinite(calibrated).all()):
        return replace(row, note="failed: its answers are not finite")
    row = replace(row, bits_per_weight=made.bits_per_weight, file_bytes=made.file_bytes, seconds=made.seconds)
    if subject.name == DETECTOR:
        return replace(row, f1=f1(reference, tested), f1_calibration=f1(seen, calibrated), note=made.note)
    right, still = (100 * float(np.mean(part.argmax(axis=1) == subject.test.labels)) for part in (reference, tested))
    return replace(
        row,
        kl=finite(mean_kl(reference, tested)),
        kl_calibration=finite(mean_kl(seen, calibrated)),
        lost_points=right - still,
        float_accuracy=right,
        note=made.note,
    )


def in_words(row: Row) -> str:
    name = ", ".join(filter(None, (row.tool, row.recipe, row.effort)))
    if row.f1 is not None:
        return f"{name}: F1 {row.f1:.4f}, calibration {row.f1_calibration:.4f}; {row.seconds:.1f} s"
    if row.kl is None:
        return f"{name}: {row.note}"
    figures = f"KL {row.kl:.5f}, calibration {row.kl_calibration:.5f}, {row.lost_points:+.2f} points lost"
    return f"{name}: {figures}; {row.seconds:.1f} s"


# --- tables ---------------------------------------------------------------------------------------------------------


def place(row: Row) -> tuple[int, ...]:
    """Where a row stands in the table."""
    known = [(c.tool, c.recipe, c.effort) for c in candidates(TOOLS, EFFORTS)]
    where = position((row.tool, row.recipe, row.effort), known)
    return position(row.model, NETWORKS), row.calibration_images, where, row.seed


KEY = ("model", "tool", "recipe", "effort", "seed", "calibration_images")
RESULTS = JsonResults("accuracy_seeds", Row, key=KEY, order=place)


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table per network and number of images; a line is the mean over seeds, and losing ones stay."""
    parts: list[str] = []
    for name, of_model in by_model(rows, model).items():
        for images in dict.fromkeys(row.calibration_images for row in of_model):
            own: list[Row] = [row for row in of_model if row.calibration_images == images]
            is_detector = any(row.f1 is not None for row in own)
            columns = ("seeds", *(FOUND if is_detector else CLASSIFIER), *FILE)
            parts += [f"**{name}**: {conditions(own)}.\n", *heading(["tool", "recipe", "effort"], columns)]
            cells: dict[tuple[str, str, str], list[Row]] = {}
            for row in own:
                cells.setdefault((row.tool, row.recipe, row.effort), []).append(row)
            parts += [_line(group, len(columns), is_detector=is_detector) for group in cells.values()]
            parts.append("")
    return "\n".join(parts)


def conditions(rows: Sequence[Row]) -> str:
    """What holds for all rows of a table."""
    accuracy = next((row.float_accuracy for row in rows if row.float_accuracy is not None), None)
    first, dates = rows[0], sorted({row.date for row in rows})
    return "; ".join(
        (
            f"{first.calibration_images} calibration images, {first.test_images} test images",
            *([] if accuracy is None else [f"float {accuracy:.2f} %"]),
            f"lowbit {', '.join(sorted({row.version for row in rows}))}",
            f"{', '.join(dict.fromkeys(row.cpu for row in rows))}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
        )
    )


def _line(rows: Sequence[Row], columns: int, *, is_detector: bool) -> str:
    """The mean of the seeds that could be measured, with the spread between them: largest minus smallest."""
    first, done = rows[0], [row for row in rows if (row.f1 if is_detector else row.kl) is not None]
    if not done:
        return failed([first.tool, first.recipe, first.effort], first.note, columns)
    notes = {row.note for row in rows if row not in done}
    recipe = f"{first.recipe} ({escaped('; '.join(sorted(notes)))})" if notes else first.recipe

    def mean(name: str) -> float | None:
        values = [value for row in done if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    def spread(name: str) -> float | None:
        values = [value for row in done if (value := getattr(row, name)) is not None]
        return max(values) - min(values) if len(values) > 1 else None

    kilobytes = mean("file_bytes")
    figures = (
        (cell(mean("f1"), ".4f"), cell(spread("f1"), ".4f"), cell(mean("f1_calibration"), ".4f"))
        if is_detector
        else (
            *(nats(value) for value in (mean("kl"), spread("kl"), mean("kl_calibration"))),
            cell(mean("lost_points"), "+.2f"),
            cell(spread("lost_points"), ".2f"),
        )
    )
    size = cell(mean("bits_per_weight"), ".2f"), cell(None if kilobytes is None else kilobytes / 1000, ".0f")
    texts = first.tool, recipe, first.effort, str(len(done))
    return line((*texts, *figures, *size, cell(mean("seconds"), ".1f")))


def nats(value: float | None) -> str:
    return (
        "0"
        if value == 0
        else cell(value, ".1e" if value and value < 1e-4 else ".1f" if value and value >= 10 else "#.2g")
    )
